package agent

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func TestDoctorJudgesLicenses(t *testing.T) {
	t.Parallel()
	db := &belfryv1.LicensedProduct{Product: "acme-db", State: "unlocked"}
	web := &belfryv1.LicensedProduct{Product: "acme-web", State: "grace", Reason: "license W-1: ended at 2026-01-01T00:00:00Z; renew it before 2026-01-15T00:00:00Z"}
	sole(t, "none", judgeLicenses(nil), LevelOK, "none: the configuration has no license and no issuer")
	sole(t, "one", judgeLicenses(&belfryv1.LicensesStatus{Products: []*belfryv1.LicensedProduct{db}}), LevelOK, "unlocked on this node: acme-db")
	sole(t, "one of two", judgeLicenses(&belfryv1.LicensesStatus{Products: []*belfryv1.LicensedProduct{db, web}}), LevelWarning, "acme-web is grace on this node: license W-1: ended")
	sole(t, "the clock", judgeLicenses(&belfryv1.LicensesStatus{Products: []*belfryv1.LicensedProduct{db}, ClockBehind: durationpb.New(48 * time.Hour)}), LevelWarning, "48h0m0s before a time that has passed")
}
