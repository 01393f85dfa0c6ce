package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/belfry-ha/belfry/internal/security"
)

// requests tells of joins and renewals that wait for somebody who has the
// authority's key, which is not in the cluster.
func (d doctor) requests() (found findings) {
	if text, foreign := d.foreign(); foreign {
		found.add(LevelUnknown, "%s", text)
		return found
	}
	waiting, err := security.Waiting(filepath.Join(d.settings.State, keysDir))
	switch {
	case errors.Is(err, fs.ErrPermission):
		found.add(LevelUnknown, "%v; run belfry doctor as the user of the agent", err)
	case err != nil:
		found.add(LevelFailure, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	for _, r := range waiting {
		since := ""
		if info, err := os.Stat(r.File); err == nil {
			since = ", since " + info.ModTime().UTC().Format(time.RFC3339)
		}
		found.add(LevelWarning, "the join or the renewal of %s waits for a signature%s: belfry ca sign %s --key FILE; if nobody asks for it any more, remove the file",
			r.Identity, since, r.File)
	}
	return found.orElse("none waits for a signature")
}
