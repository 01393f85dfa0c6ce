package agent

import (
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/producer/unit"
)

// units lets process.exit ask systemd for the main processes of services.
type units struct{ *unit.Systemd }

// Open begins to follow services.
func (u units) Open(changed func()) process.Mains { return u.Systemd.Open(changed) }
