//go:build race

package license

// forgeries is how many changed files are tried. The package has no goroutine
// of its own; the race detector only makes it slow.
const forgeries = 20_000
