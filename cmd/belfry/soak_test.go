//go:build soak

package main

import (
	"flag"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var rounds = flag.Int("rounds", 100, "how often each of testdata/soak does its thing")

// TestSoak plays the long variants: `make soak ROUNDS=100`.
func TestSoak(t *testing.T) {
	t.Parallel()
	params := scriptParams("soak", 6*time.Hour)
	setup := params.Setup
	params.Setup = func(env *testscript.Env) error {
		env.Setenv("ROUNDS", strconv.Itoa(*rounds))
		return setup(env)
	}
	testscript.Run(t, params)
}
