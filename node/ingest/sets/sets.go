// Package sets holds the data sets that come with the program. Its README says
// whose they are and what was changed.
package sets

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"strings"

	"village/node/ingest"
	"village/protocol/dataset"
)

//go:embed *.csv *.csv.gz
var files embed.FS

// Set describes a data set.
type Set struct {
	Name     string
	About    string // one line
	Citation string // with the licence, to be shown with the rows
	Rows     int
	Defaults
}

// Defaults is how a set is meant to be read.
type Defaults struct {
	Options   dataset.Options
	Features  []string
	Partition string            // its natural one, as the simulator writes it; "" = none
	Nations   map[string]string // ISO 3166-1 alpha-3, of values of the partition's column that are no such code
}

// Heart is the set that the demo trains on.
var Heart = Set{
	Name:  "heart",
	About: "patients of four hospitals in three nations: heart disease or not",
	Citation: "Janosi, A., Steinbrunn, W., Pfisterer, M. and Detrano, R. (1988). Heart Disease. " +
		"UCI Machine Learning Repository. https://doi.org/10.24432/C52P4X. CC BY 4.0",
	Rows: 740,
	Defaults: Defaults{
		Options: dataset.Options{
			Name: "heart disease", Target: "label", Split: "split", Positive: "1", Domain: "health", Licence: "CC-BY-4.0",
			Categorical: []string{"cp", "restecg"},
			// The same levels at every hospital, also those that one of them lacks.
			Levels: map[string][]string{"cp": {"1", "2", "3", "4"}, "restecg": {"0", "1", "2"}, "label": {"0", "1"}},
		},
		Features:  []string{"age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"},
		Partition: "column:center",
		Nations:   map[string]string{"cleveland": "USA", "hungarian": "HUN", "switzerland": "CHE", "va": "USA"},
	},
}

var all = []Set{
	Heart,
	{
		Name:  "pisa",
		About: "students of 41 nations: at least basic mathematics or not",
		Citation: "OECD (2003). PISA 2003 Database. https://www.oecd.org/pisa/. Used under the terms of the OECD, with attribution; " +
			"by way of learningtower (MIT)",
		Rows: 20_332,
		Defaults: Defaults{
			Options: dataset.Options{
				Name: "mathematics", Target: "level2", Split: "split", Positive: "yes", Domain: "education",
				Ignore: []string{"country", "math"},
			},
			Features: []string{
				"gender|fill missing", "mother_educ|fill missing", "father_educ|fill missing", "computer|fill missing", "internet|fill missing",
				"desk|fill missing", "room|fill missing", "dishwasher|fill missing", "book|fill missing", "escs|fill 0|indicator",
			},
			Partition: "column:country",
		},
	},
	{
		Name:  "bikes",
		About: "bicycles rented in three cities of three nations: a busy hour or not",
		Citation: "Fanaee-T, H. and Gama, J. (2013). Bike Sharing. UCI Machine Learning Repository. https://doi.org/10.24432/C5W894. CC BY 4.0. " +
			"E, S. V. and Cho, Y. (2020). Seoul Bike Sharing Demand. UCI Machine Learning Repository. https://doi.org/10.24432/C5F62R. CC BY 4.0. " +
			"Mavrodiev, H. London bike sharing dataset; powered by TfL Open Data",
		Rows: 43_258,
		Defaults: Defaults{
			Options: dataset.Options{
				Name: "busy hours", Target: "busy", Split: "split", Positive: "yes", Domain: "transport",
				Categorical: []string{"hour", "weekday", "month"}, Ignore: []string{"city", "count"},
			},
			Features:  []string{"hour", "weekday", "month", "holiday", "temp_c", "humidity", "wind_ms"},
			Partition: "column:city",
			Nations:   map[string]string{"Washington_DC": "USA", "London": "GBR", "Seoul": "KOR"},
		},
	},
	{
		Name:  "earthquakes",
		About: "significant earthquakes since 1900 in ten regions: a tsunami or not",
		Citation: "NCEI/WDS Global Significant Earthquake Database. NOAA National Centers for Environmental Information. " +
			"https://doi.org/10.7289/V5TD9V7K. Public domain",
		Rows: 2_676,
		Defaults: Defaults{
			Options: dataset.Options{
				Name: "tsunamis", Target: "tsunami", Split: "split", Positive: "yes", Domain: "disaster",
				Ignore: []string{"region", "country"},
			},
			Features:  []string{"magnitude", "depth_km|log1p", "year", "lat", "lat|abs", "lon|cyclic 360"},
			Partition: "column:region",
		},
	},
	{
		Name:  "pendigits",
		About: "digits written on a tablet by 44 people, as eight points of the pen's way",
		Citation: "Alpaydin, E. and Alimoglu, F. (1996). Pen-Based Recognition of Handwritten Digits. UCI Machine Learning Repository. " +
			"https://doi.org/10.24432/C5MG6K. CC BY 4.0",
		Rows:     10_992,
		Defaults: Defaults{Options: dataset.Options{Name: "pen digits", Target: "digit", Split: "split", Licence: "CC-BY-4.0"}},
	},
	{
		Name:  "digits",
		About: "digits written on paper, as pictures of 8 x 8 pixels",
		Citation: "Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning Repository. " +
			"https://doi.org/10.24432/C50P49. CC BY 4.0",
		Rows:     1_797,
		Defaults: Defaults{Options: dataset.Options{Name: "digits", Target: "digit", Split: "split", Licence: "CC-BY-4.0"}},
	},
}

// Names lists the sets.
func Names() []Set { return append([]Set(nil), all...) }

// ErrUnknown is what [Open] wraps where no set has the name.
var ErrUnknown = errors.New("no such data set is shipped")

// Open returns the rows of a set.
func Open(name string) (dataset.Table, Set, error) {
	var names []string
	for _, s := range all {
		if s.Name == name {
			t, err := s.Table()
			return t, s, err
		}
		names = append(names, s.Name)
	}
	return dataset.Table{}, Set{}, fmt.Errorf("%w: %.64q; those shipped are %s", ErrUnknown, name, strings.Join(names, ", "))
}

// Table returns the rows.
func (s Set) Table() (t dataset.Table, err error) {
	var r io.Reader
	if b, err := files.ReadFile(s.Name + ".csv"); err == nil {
		r = bytes.NewReader(b)
	} else if b, err = files.ReadFile(s.Name + ".csv.gz"); err != nil {
		return t, err
	} else if r, err = gzip.NewReader(bytes.NewReader(b)); err != nil {
		return t, err
	}
	packed, _, err := ingest.CSV(r, ingest.Options{})
	if err != nil {
		return t, fmt.Errorf("the shipped set %s: %w", s.Name, err)
	}
	return packed.Table(), nil
}
