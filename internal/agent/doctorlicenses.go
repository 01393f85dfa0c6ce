package agent

import (
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// licenses judges what products may do on this node. None of it keeps Belfry from
// its work, so that nothing here is a failure.
func (d doctor) licenses() findings {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	return judgeLicenses(status.GetLicenses())
}

func judgeLicenses(s *belfryv1.LicensesStatus) findings {
	if len(s.GetProducts()) == 0 {
		return findings{{Level: LevelOK, Text: "none: the configuration has no license and no issuer"}}
	}
	var found findings
	if behind := s.GetClockBehind().AsDuration(); behind > 0 {
		found.add(LevelWarning, "this node's clock is %s before a time that has passed, by which licenses are judged: set the clock", behind.Round(time.Minute))
	}
	var good []string
	for _, p := range s.GetProducts() {
		if p.GetState() == belfry.LicenseUnlocked.String() {
			good = append(good, p.GetProduct())
			continue
		}
		found.add(LevelWarning, "%s is %s on this node: %s", p.GetProduct(), p.GetState(), p.GetReason())
	}
	return found.orElse("unlocked on this node: %s", strings.Join(good, ", "))
}
