//go:build !race

package agent

// millionRepeat is how many of a million occurrences are posted at once.
const millionRepeat = 1
