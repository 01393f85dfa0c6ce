package config

// Nearest is the known name that needs the fewest edits to become name, if
// one is near enough to be what was meant: at most a third of the letters
// wrong, and at least one typing error allowed. Of equally near ones the first wins.
func Nearest(name string, known []string) (string, bool) {
	best, fewest := "", max(1, len(name)/3)+1
	for _, k := range known {
		if max(len(k)-len(name), len(name)-len(k)) >= fewest {
			continue // needs that many at least
		}
		if d := distance(name, k); d < fewest {
			best, fewest = k, d
		}
	}
	return best, best != ""
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
