package learn

// scores are histograms of the probability of the positive class of two, unpacked:
// over its rows and over the others.
type scores struct {
	positives, negatives       [Bins]uint64
	allPositives, allNegatives float64
}

// scores are those of the class with this index. Counts have histograms of
// class 1: for class 0 its rows are the others, and the bins are the other way
// round.
func (c Counts) scores(class int) *scores {
	s := new(scores)
	ones, zeros := &s.positives, &s.negatives
	if class == 0 {
		ones, zeros = zeros, ones
	}
	read := func(packed []byte, to *[Bins]uint64) {
		for r := runsOf(packed); r.at < Bins; r.next() {
			at := r.at
			if class == 0 {
				at = Bins - 1 - at
			}
			to[at] = r.n
		}
	}
	read(c.Positives, ones)
	read(c.Negatives, zeros)
	for at := range Bins {
		s.allPositives += float64(s.positives[at])
		s.allNegatives += float64(s.negatives[at])
	}
	return s
}

// probability is the one in the middle of a bin: the inverse of [bin].
func probability(at int) float64 {
	s := (float64(at) + .5) / Bins
	yes, no := float64(s*s), float64((1-s)*(1-s))
	return yes / (yes + no)
}

// calibration returns the tenths that have rows, and the expected calibration
// error (Naeini, Cooper, Hauskrecht 2015), nil without rows.
func (s *scores) calibration() ([]CalibrationBin, *float64) {
	const tenths = 10
	var rows, predicted, observed [tenths]float64
	for at := range Bins {
		n := float64(s.positives[at]) + float64(s.negatives[at])
		p := probability(at)
		tenth := min(int(p*tenths), tenths-1)
		rows[tenth] += n
		predicted[tenth] += float64(n * p)
		observed[tenth] += float64(s.positives[at])
	}
	all := s.allPositives + s.allNegatives
	if all == 0 {
		return nil, nil
	}
	var bins []CalibrationBin
	off := 0.0
	for i, n := range rows {
		if n == 0 {
			continue
		}
		b := CalibrationBin{
			From: float64(i) / tenths, To: float64(i+1) / tenths, Rows: uint64(n),
			Predicted: predicted[i] / n, Observed: observed[i] / n,
		}
		bins = append(bins, b)
		off += float64(n / all * max(b.Predicted-b.Observed, b.Observed-b.Predicted))
	}
	return bins, &off
}

// roc returns the curve from (0, 0) to (1, 1), nil where a class has no rows. Of
// the points of all bins it leaves out those by which the two rates together have
// gone on by less than a hundredth of their way.
func (s *scores) roc() []ROCPoint {
	if s.allPositives == 0 || s.allNegatives == 0 {
		return nil
	}
	points := []ROCPoint{{}}
	var positives, negatives float64 // at or above the bin
	last := 0
	for at := Bins - 1; at >= 0; at-- {
		positives += float64(s.positives[at])
		negatives += float64(s.negatives[at])
		p := ROCPoint{FPR: negatives / s.allNegatives, TPR: positives / s.allPositives}
		if gone := int((p.FPR + p.TPR) * 50); gone > last {
			points, last = append(points, p), gone
		}
	}
	return points
}
