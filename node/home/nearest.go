package home

// Nearest returns the candidate with the fewest edits from word, the first of
// equals, or "" where none is near enough to have been meant.
func Nearest(word string, candidates []string) string {
	best, limit := "", max(1, min(3, len(word)/2))
	for _, c := range candidates {
		if d := distance(word, c); d <= limit && d < len(c) {
			best, limit = c, d-1
		}
	}
	return best
}

// distance counts insertions, deletions, substitutions and swaps of neighbours
// (optimal string alignment) between a and b, in bytes.
func distance(a, b string) int {
	if max(len(a), len(b)) > 64 {
		return 64
	}
	var before, last, row [65]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
