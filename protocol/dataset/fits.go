package dataset

// Features are the names of the published feature columns.
func (m Manifest) Features() []string {
	features := []string{}
	for _, c := range m.Columns {
		if c.Role == Feature {
			features = append(features, c.Name)
		}
	}
	return features
}

// Lacks says which of the columns that a task is to be over a dataset does not
// have, or nil. It looks at names alone; see [Manifest.Fits].
func (m Manifest) Lacks(target string, columns []string) error {
	return lacking(append([]string{target}, columns...), []Manifest{m})
}
