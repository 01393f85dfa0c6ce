package agent

import (
	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// sourcesOf are the producers that say how they find out, by class.
func sourcesOf(producers []producer.Producer) map[belfry.Class]producer.Sourced {
	sources := map[belfry.Class]producer.Sourced{}
	for _, p := range producers {
		if s, ok := p.(producer.Sourced); ok {
			for _, info := range p.Classes() {
				sources[info.Class] = s
			}
		}
	}
	return sources
}
