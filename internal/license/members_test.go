package license

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestEvaluateMembersIsEvaluateOfEach: all members at once are judged as each by
// itself.
func TestEvaluateMembersIsEvaluateOfEach(t *testing.T) {
	t.Parallel()
	pool := drawPool(t)
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, pool)
		all := EvaluateMembers(in)
		for i, m := range in.Members {
			in.Node = m.Node
			if diff := cmp.Diff(Evaluate(in), all[i]); diff != "" {
				t.Fatalf("member %s (-by itself +with all):\n%s", m.Node, diff)
			}
		}
	})
}
