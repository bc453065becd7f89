package home

import (
	"fmt"
	"strings"

	"village/node/api"
)

// Nation is a country of ISO 3166-1.
type Nation struct {
	Code   string // alpha-3
	Alpha2 string
	Name   string
}

// Nations returns all countries in the order of their alpha-3 codes.
func Nations() []Nation {
	lines := strings.Split(nations, "\n")
	all := make([]Nation, len(lines))
	for i, line := range lines {
		all[i] = Nation{Code: line[:3], Alpha2: line[4:6], Name: line[7:]}
	}
	return all
}

// CheckNation returns the ISO 3166-1 alpha-3 code that s is, in upper case.
// The error for an unknown one names what may have been meant.
func CheckNation(s string) (string, error) {
	code := strings.ToUpper(strings.TrimSpace(s))
	all := Nations()
	words := make([]string, 0, len(all))
	meant := ""
	for _, n := range all {
		if n.Code == code {
			return code, nil
		}
		if n.Alpha2 == code || strings.EqualFold(n.Name, code) {
			meant = n.Code
		}
		words = append(words, n.Code)
	}
	if meant == "" {
		meant = Nearest(code, words)
	}
	hint := "use a code such as HUN"
	for _, n := range all {
		if n.Code == meant {
			hint = fmt.Sprintf("did you mean %s (%s)?", n.Code, n.Name)
		}
	}
	return "", api.Fail(api.CodeUsage, "village init --help",
		"%q is not a country code of ISO 3166-1 alpha-3; %s", s, hint)
}
