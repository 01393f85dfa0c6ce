//go:build race

package agent

// millionRepeat is how many of a million occurrences are posted at once. Posting
// has been looked at by the race detector long before the end; it is slow.
const millionRepeat = 10
