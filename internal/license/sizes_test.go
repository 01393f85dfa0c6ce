//go:build !race

package license

// forgeries is how many changed files are tried.
const forgeries = 1_000_000
