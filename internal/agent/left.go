package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
)

// leftFile, in the state directory, holds the id of the node that was asked to
// leave. The member table tells only that it is none any more. It is written
// before the others are asked, since nothing may come to be written after, and
// means something only if the table does not list the node.
const leftFile = "left"

// Leaving says that the removal that follows is this node's own wish.
func (a *Agent) Leaving(wish bool) {
	a.leaving.Store(wish)
	if err := keepWish(a.opts.Config.State, a.id.node.ID, wish); err != nil {
		a.log.Warn("that this node leaves is not kept; if it does, belfry doctor will say that it was removed", "err", err)
	}
}

func keepWish(state string, node belfry.NodeID, wish bool) error {
	path := filepath.Join(state, leftFile)
	if wish {
		return security.ReplaceFile(path, []byte(node.String()+"\n"))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ending says how the membership of a node that t does not list ended, and what
// to do, in the state directory of that node.
func (t *Table) ending(state string, node belfry.NodeID) string {
	id, err := os.ReadFile(filepath.Join(state, leftFile))
	if err == nil && strings.TrimSpace(string(id)) == node.String() {
		return fmt.Sprintf("this machine has left cluster %s: node %s is not listed in generation %d; to enter it again, or another: belfry join TOKEN", t.Name, node, t.Generation)
	}
	return fmt.Sprintf("node %s is not listed in generation %d: it was removed from cluster %s; to enter it again: belfry join TOKEN", node, t.Generation, t.Name)
}
