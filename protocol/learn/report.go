package learn

import "slices"

// Report is what counts say of a model, in the terms of scikit-learn's
// classification_report with zero_division=0: a quotient whose divisor is 0
// is 0. Nothing in it is NaN.
type Report struct {
	Rows     uint64   `json:"rows"`
	Accuracy *float64 `json:"accuracy"` // null without rows
	// F1 is that of the positive class where there are two classes, else
	// the macro average; null without rows.
	F1 *float64 `json:"f1"`
	// ROCAUC is the area under the receiver operating characteristic, from
	// histograms; with more than two classes the mean of each class against
	// the rest, over the classes that have rows on both sides. It is null
	// where there is none.
	ROCAUC    *float64      `json:"roc_auc"`
	Classes   []ClassReport `json:"classes"`
	Micro     Average       `json:"micro_average"`    // over all rows alike: the accuracy
	Macro     Average       `json:"macro_average"`    // over the task's classes alike, also those without a row
	Weighted  Average       `json:"weighted_average"` // over the classes by their support
	Confusion [][]uint64    `json:"confusion"`        // [true][predicted]

	// Of a numeric target: mean absolute error, root of the mean squared error,
	// both in the target's unit, and coefficient of determination.
	MAE  *float64 `json:"mae,omitempty"`
	RMSE *float64 `json:"rmse,omitempty"`
	R2   *float64 `json:"r2,omitempty"`

	// Details, which [Counts.Detailed] adds.
	Intervals   *Intervals       `json:"intervals,omitempty"`
	Calibration []CalibrationBin `json:"calibration,omitempty"` // of the positive class of two; the tenths that have rows
	// CalibrationError is the mean distance of predicted from observed over the
	// bins, weighted by their rows.
	CalibrationError *float64   `json:"calibration_error,omitempty"`
	ROC              []ROCPoint `json:"roc,omitempty"` // of the positive class of two, at most 101 points
	Fairness         *Fairness  `json:"fairness,omitempty"`
}

// Intervals are those that hold 95 % of what the metrics come to on rows drawn
// anew, with replacement, from the rows counted (Efron's bootstrap, 1,000 draws):
// of classes by percentiles, of a numeric target by standard errors
// (bootstrap-t). They are null where a metric is, and MAE, RMSE and R2 under five
// rows.
//
// So that intervals of few rows are as wide as they ought to be, rows of classes
// are drawn from one row more than were counted, half of it right and half of it
// wrong. Rows have their scores and predicted classes together; with more than
// two classes this is so only nearly. R2 is measured by the spread of the target
// in the rows counted, which is not drawn anew.
type Intervals struct {
	Accuracy *Interval `json:"accuracy"`
	F1       *Interval `json:"f1"`
	ROCAUC   *Interval `json:"roc_auc"`
	MAE      *Interval `json:"mae,omitempty"`
	RMSE     *Interval `json:"rmse,omitempty"`
	R2       *Interval `json:"r2,omitempty"`
}

// Interval is from the lower to the upper end.
type Interval [2]float64

// CalibrationBin holds the rows whose predicted probability of the positive
// class is from From to To, a tenth.
type CalibrationBin struct {
	From      float64 `json:"from"`
	To        float64 `json:"to"`
	Rows      uint64  `json:"rows"`
	Predicted float64 `json:"predicted"` // mean, to the width of a histogram's bin
	Observed  float64 `json:"observed"`  // share of the positive class
}

// ROCPoint is a point of the receiver operating characteristic.
type ROCPoint struct {
	FPR float64 `json:"fpr"`
	TPR float64 `json:"tpr"`
}

// Fairness tells groups apart, in the terms of Fairlearn's MetricFrame. Groups of
// fewer than ten rows are hidden, and in no difference.
type Fairness struct {
	Column string        `json:"column"`
	Hidden int           `json:"hidden"` // groups
	Groups []GroupReport `json:"groups"`
	// The differences are of two classes alone, null where fewer than two groups
	// define them: that of selection rates, largest less smallest, and the larger
	// of those of TPR and FPR.
	DemographicParity *float64 `json:"demographic_parity_difference"`
	EqualisedOdds     *float64 `json:"equalised_odds_difference"`
}

// GroupReport is how the model did on one group. Null is what is undefined.
type GroupReport struct {
	Group     string   `json:"group"`
	Rows      uint64   `json:"rows"`
	Accuracy  *float64 `json:"accuracy"`
	Selection *float64 `json:"selection_rate"` // share predicted as positive
	TPR       *float64 `json:"tpr"`
	FPR       *float64 `json:"fpr"`
}

// Gain sets two models beside each other, row by row.
type Gain struct {
	Rows   uint64 `json:"rows"`
	Better uint64 `json:"better"` // rows that only the new model gets right
	Worse  uint64 `json:"worse"`  // rows that only the old one does
	// Accuracy is what the new model adds, with its 95 % interval over rows
	// drawn anew; null without rows.
	Accuracy *float64  `json:"accuracy"`
	Interval *Interval `json:"interval"`
}

// ClassReport is how the model did on one class.
type ClassReport struct {
	Label     string  `json:"label"`
	Precision float64 `json:"precision"` // of the rows predicted as this class, the share that is
	Recall    float64 `json:"recall"`    // of the rows of this class, the share predicted as it
	F1        float64 `json:"f1"`        // harmonic mean of the two
	Support   uint64  `json:"support"`   // rows of this class
}

// Average is a mean over the classes.
type Average struct {
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
	Support   uint64  `json:"support"`
}

// Report computes the metrics. Classes are the labels by index, none for a
// numeric target; positive is the label of which F1 is, where there are two.
// Counts that do not pass [Counts.Check] for these classes have no rows to
// report.
func (c Counts) Report(classes []string, positive string) Report {
	k := len(classes)
	c = c.sound(k)
	r := Report{Rows: c.Rows, Classes: make([]ClassReport, k), Confusion: make([][]uint64, k)}
	predicted := make([]uint64, k)
	for i := range k {
		r.Confusion[i] = append([]uint64{}, c.Confusion[i*k:(i+1)*k]...)
		for j, n := range r.Confusion[i] {
			predicted[j] += n
		}
	}

	correct := uint64(0)
	for i, label := range classes {
		support := uint64(0)
		for _, n := range r.Confusion[i] {
			support += n
		}
		hits := r.Confusion[i][i]
		correct += hits
		class := ClassReport{
			Label:     label,
			Precision: quotient(float64(hits), float64(predicted[i])),
			Recall:    quotient(float64(hits), float64(support)),
			F1:        quotient(2*float64(hits), float64(support)+float64(predicted[i])),
			Support:   support,
		}
		r.Classes[i] = class
		r.Macro.add(class, 1/float64(k))
		r.Weighted.add(class, quotient(float64(support), float64(c.Rows)))
	}
	accuracy := quotient(float64(correct), float64(c.Rows))
	r.Micro = Average{Precision: accuracy, Recall: accuracy, F1: accuracy, Support: c.Rows}
	if c.Rows == 0 {
		return r
	}
	if c.Errors != nil {
		mae, rmse, r2 := c.Errors.report(c.Rows)
		r.MAE, r.RMSE, r.R2 = &mae, &rmse, r2
		return r
	}

	r.Accuracy = &accuracy
	f1 := r.Macro.F1
	for _, class := range r.Classes {
		if k == 2 && class.Label == positive {
			f1 = class.F1
		}
	}
	r.F1 = &f1
	r.ROCAUC = c.rocAUC(k)
	return r
}

// Detailed is [Counts.Report] with all details. Sensitive is the column whose
// groups, by index, were counted; both are empty where there is none. It draws
// rows anew a thousand times: it takes milliseconds, and gives the same at
// everybody who has the same counts.
func (c Counts) Detailed(classes []string, positive, sensitive string, groups []string) Report {
	k := len(classes)
	c = c.sound(k)
	r := c.Report(classes, positive)
	r.Intervals = c.intervals(r, positive)
	if at := slices.Index(classes, positive); k == 2 && at >= 0 {
		scores := c.scores(at)
		r.Calibration, r.CalibrationError = scores.calibration()
		r.ROC = scores.roc()
	}
	if sensitive != "" {
		r.Fairness = c.fairness(classes, positive, sensitive, groups)
	}
	return r
}

// sound returns the counts, or empty ones if they do not pass [Counts.Check].
func (c Counts) sound(classes int) Counts {
	groups := 0
	if len(c.Confusion) > 0 {
		groups = len(c.Groups) / len(c.Confusion)
	}
	if c.Check(classes, groups) != nil {
		return Counts{Confusion: make([]uint64, classes*classes)}
	}
	return c
}

// add adds a class's metrics by a weight. The conversions keep products from
// being fused with sums, so that a report is the same on all architectures.
func (a *Average) add(c ClassReport, weight float64) {
	a.Precision += float64(weight * c.Precision)
	a.Recall += float64(weight * c.Recall)
	a.F1 += float64(weight * c.F1)
	a.Support += c.Support
}

// quotient is a/b, or 0 where b is 0.
func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// rocAUC returns the mean area over the pairs of histograms that have rows on
// both sides, nil where none has. The counts have passed Check.
func (c Counts) rocAUC(classes int) *float64 {
	pairs, _ := scored(classes)
	positives, negatives := runsOf(c.Positives), runsOf(c.Negatives)
	sum, defined := 0.0, 0
	for h := range pairs {
		if a, ok := area(&positives, &negatives, (h+1)*Bins); ok {
			sum += a
			defined++
		}
	}
	if defined == 0 {
		return nil
	}
	mean := sum / float64(defined)
	return &mean
}

// area returns the share of pairs of a positive and a negative in which the
// positive has the higher score, those within one bin counting half: the
// trapezoids under the curve. It takes the bins before end.
func area(positives, negatives *runs, end int) (a float64, ok bool) {
	var below, all, won float64 // negatives in lower bins, positives, pairs won
	for {
		at := min(positives.at, negatives.at)
		if at >= end {
			break
		}
		p, n := float64(positives.count(at)), float64(negatives.count(at))
		won += float64(p * (below + n/2))
		below += n
		all += p
	}
	if all == 0 || below == 0 {
		return 0, false
	}
	return min(won/(all*below), 1), true
}
