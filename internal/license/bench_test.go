package license

import (
	"fmt"
	"testing"

	"github.com/belfry-ha/belfry"
)

func BenchmarkParse(b *testing.B) {
	text := signed(b, fullLicense())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEvaluate reads, verifies and judges all from the texts on, as a node
// does after each generation.
func BenchmarkEvaluate(b *testing.B) {
	for _, files := range []int{1, 8, 64} {
		for _, nodes := range []int{4, 1024} {
			b.Run(fmt.Sprintf("files=%d/nodes=%d", files, nodes), func(b *testing.B) {
				in := scene(b)
				in.Members = nil
				for n := range nodes {
					in.Members = append(in.Members, Member{Node: node(n + 1), Joined: uint64(n), Cores: 8, MemoryBytes: 64 << 30})
				}
				for n := range files {
					in.Files = append(in.Files, signed(b, with(annual(), func(l *License) { l.ID = ID(fmt.Sprintf("L%d", n)) })))
				}
				b.ReportAllocs()
				for b.Loop() {
					if v := Evaluate(in); v.State != belfry.LicenseUnlocked {
						b.Fatal(told(v))
					}
				}
			})
		}
	}
}
