package sets

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"village/protocol/dataset"
)

// Each set can be read as it says, loses no row but a repeated one, and makes a
// task of all its features.
func TestSets(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Names() {
		table, again, err := Open(s.Name)
		if err != nil || again.Name != s.Name {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		if len(table.Rows) != s.Rows || s.Citation == "" || s.About == "" {
			t.Errorf("%s: %d rows, said to be %d", s.Name, len(table.Rows), s.Rows)
		}
		cleaned, err := dataset.Clean(table, s.Options)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		repeated := cleaned.Dropped[dataset.DropDuplicate]
		if cleaned.Rows.Rows() != s.Rows-repeated || repeated > s.Rows/25 || len(cleaned.LeftOut) != len(s.Options.Ignore) {
			t.Errorf("%s: %d of %d rows are left, dropped %v, left out %v", s.Name, cleaned.Rows.Rows(), s.Rows, cleaned.Dropped, cleaned.LeftOut)
		}
		encoding, err := dataset.NewEncoding(s.Options.Target, s.Features, "", []dataset.Manifest{cleaned.Manifest})
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		training, testing, err := encoding.Divide(cleaned.Table(), s.Options.Split, 0)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		if share := float64(len(testing.Rows)) / float64(cleaned.Rows.Rows()); share < 0.15 || share > 0.4 {
			t.Errorf("%s: %.2f of the rows are for tests", s.Name, share)
		}
		if _, err := encoding.Encode(training); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		if column, ok := strings.CutPrefix(s.Partition, "column:"); ok {
			at := slices.Index(table.Columns, column)
			for value := range s.Nations {
				if !slices.ContainsFunc(table.Rows, func(row []string) bool { return row[at] == value }) {
					t.Errorf("%s: no row is of %s", s.Name, value)
				}
			}
		}
		if !strings.Contains(string(readme), "\n## "+s.Name+"\n") {
			t.Errorf("the README does not say whose %s is", s.Name)
		}
		for _, c := range table.Columns {
			// Points and pixels are told of together.
			if s.Name != "pendigits" && s.Name != "digits" && !strings.Contains(string(readme), c) {
				t.Errorf("%s: the README does not say what %s means", s.Name, c)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, _, err := Open("hart"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "heart, pisa") {
		t.Errorf("error %v", err)
	}
}

// The program stays small.
func TestSize(t *testing.T) {
	total := int64(0)
	err := fs.WalkDir(files, ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil || total > 1<<20 {
		t.Errorf("the sets take %d bytes, %v", total, err)
	}
}
