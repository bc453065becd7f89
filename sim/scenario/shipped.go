package scenario

import (
	"embed"
	"path"
	"slices"
)

//go:embed *.toml
var files embed.FS

// order is that in which the shipped scenarios are shown.
var order = []string{
	"four-hospitals", "pisa-41-nations", "pen-digits", "un-193", "lossy-30", "partition-and-heal", "byzantine-20", "mixing-graphs", "ten-thousand",
}

// Shipped returns the scenarios that come with the program.
func Shipped() []Scenario {
	var list []Scenario
	for _, name := range order {
		b, err := files.ReadFile(path.Join(name + ".toml"))
		if err != nil {
			panic(err) // it is part of the program
		}
		s, err := Decode(name+".toml", b)
		if err != nil {
			panic(err)
		}
		list = append(list, s)
	}
	return list
}

// Named returns the shipped scenario of a name. Near is the name that was most
// likely meant where there is none, or "".
func Named(name string) (s Scenario, near string, ok bool) {
	all := Shipped()
	if at := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name }); at >= 0 {
		return all[at], "", true
	}
	return Scenario{}, nearest(name, order), false
}
