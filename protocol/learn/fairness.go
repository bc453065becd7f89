package learn

import "slices"

// minGroup is the number of rows below which a group is hidden.
const minGroup = 10

// fairness returns the figures by group, nil where the groups are not those that
// were counted. The counts have passed Check.
func (c Counts) fairness(classes []string, positive, column string, groups []string) *Fairness {
	k := len(classes)
	if k == 0 || len(groups) == 0 || len(c.Groups) != len(groups)*k*k {
		return nil
	}
	f := &Fairness{Column: column, Groups: []GroupReport{}}
	at := slices.Index(classes, positive)
	for i, name := range groups {
		if g := groupReport(name, c.Groups[i*k*k:(i+1)*k*k], k, at); g.Rows >= minGroup {
			f.Groups = append(f.Groups, g)
		} else {
			f.Hidden++
		}
	}
	f.DemographicParity = f.difference(func(g GroupReport) *float64 { return g.Selection })
	tpr := f.difference(func(g GroupReport) *float64 { return g.TPR })
	fpr := f.difference(func(g GroupReport) *float64 { return g.FPR })
	if tpr != nil && fpr != nil {
		larger := max(*tpr, *fpr)
		f.EqualisedOdds = &larger
	}
	return f
}

// groupReport reads one group's confusion matrix. Positive is the index of that
// class.
func groupReport(name string, confusion []uint64, k, positive int) GroupReport {
	g := GroupReport{Group: name}
	correct := uint64(0)
	for i, n := range confusion {
		g.Rows += n
		if i/k == i%k {
			correct += n
		}
	}
	g.Accuracy = share(correct, g.Rows)
	if k == 2 && positive >= 0 {
		other := 1 - positive
		tp, fn := confusion[positive*2+positive], confusion[positive*2+other]
		fp, tn := confusion[other*2+positive], confusion[other*2+other]
		g.Selection = share(tp+fp, g.Rows)
		g.TPR = share(tp, tp+fn)
		g.FPR = share(fp, fp+tn)
	}
	return g
}

// share is a/b, nil where b is 0.
func share(a, b uint64) *float64 {
	if b == 0 {
		return nil
	}
	v := float64(a) / float64(b)
	return &v
}

// difference is the largest of a figure less the smallest, over the groups that
// are not hidden and define it: nil where those are fewer than two.
func (f *Fairness) difference(figure func(GroupReport) *float64) *float64 {
	var values []float64
	for _, g := range f.Groups {
		if v := figure(g); v != nil {
			values = append(values, *v)
		}
	}
	if len(values) < 2 {
		return nil
	}
	d := slices.Max(values) - slices.Min(values)
	return &d
}
