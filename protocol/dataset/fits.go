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

// Fits says what a dataset lacks for a task over a target and features.
func (m Manifest) Fits(target string, features []string) error {
	return lacking(append([]string{target}, features...), []Manifest{m})
}
