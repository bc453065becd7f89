package scenario

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

// countriesCSV is described in countries.md.
//
//go:embed countries.csv
var countriesCSV string

// country is a country with a place on the map.
type country struct {
	code, name string  // ISO 3166-1 alpha-3
	lat, lon   float64 // degrees
}

// world is the table of countries.
type world struct {
	all     []country
	members []country      // those of the United Nations
	at      map[string]int // place in all by code
}

var countries = sync.OnceValue(func() world {
	lines, err := csv.NewReader(strings.NewReader(countriesCSV)).ReadAll()
	if err != nil {
		panic(err) // it is part of the program
	}
	w := world{at: map[string]int{}}
	for _, line := range lines[1:] {
		c := country{code: line[0], name: line[1]}
		if c.lat, err = strconv.ParseFloat(line[2], 64); err == nil {
			c.lon, err = strconv.ParseFloat(line[3], 64)
		}
		if err != nil {
			panic(err)
		}
		w.at[c.code] = len(w.all)
		w.all = append(w.all, c)
		if line[4] == "yes" {
			w.members = append(w.members, c)
		}
	}
	return w
})

// nowhere is the nation of a node of which none is known: ISO leaves the code
// to its users, and passports have it for "unspecified".
const nowhere = "XXX"

// nationOf returns the nation of a column's value: what the data says, or the
// value itself where it is a code.
func nationOf(value string, known map[string]string) string {
	if n, ok := known[value]; ok {
		return n
	}
	if len(value) == 3 && strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		return value
	}
	return nowhere
}

// dealNations gives nodes nations and names: members of the United Nations in a
// random order, again and again where there are more nodes.
func dealNations(n int, seed uint64) (nations, names []string) {
	members := countries().members
	order := stream("nations", seed).Perm(len(members))
	for i := range n {
		c := members[order[i%len(order)]]
		name := c.name
		if again := i / len(order); again > 0 {
			name = fmt.Sprintf("%s %d", name, again+1)
		}
		nations, names = append(nations, c.code), append(names, name)
	}
	return nations, names
}

// What a message needs over a distance: light in fibre makes 200 km in a
// millisecond, along cables that are half as long again as the great circle;
// and on both ends some time that varies.
const (
	earth      = 6371.0              // km, mean radius
	unknown    = earth * math.Pi / 2 // km, the mean distance of two points of the globe
	leastDelay = 2 * time.Millisecond
	mostDelay  = 4 * time.Millisecond
)

// apart is the great-circle distance in km (haversine formula).
func (c country) apart(d country) float64 {
	const radian = math.Pi / 180
	lat, lon := math.Sin((d.lat-c.lat)*radian/2), math.Sin((d.lon-c.lon)*radian/2)
	h := lat*lat + math.Cos(c.lat*radian)*math.Cos(d.lat*radian)*lon*lon
	return 2 * earth * math.Asin(math.Sqrt(min(h, 1)))
}

// between returns the time that distance costs between two nodes, by place. A
// nation without a place on the map is as far from all as two points of the
// globe are on average, and not far from itself.
func between(nations []string) func(from, to int) time.Duration {
	w := countries()
	places := map[string]int{} // of a nation in the table of delays
	var distinct []string
	of := make([]int32, len(nations))
	for i, n := range nations {
		p, ok := places[n]
		if !ok {
			p = len(distinct)
			places[n] = p
			distinct = append(distinct, n)
		}
		of[i] = int32(p)
	}
	size := len(distinct)
	delays := make([]time.Duration, size*size)
	for i, a := range distinct {
		for j, b := range distinct {
			km := unknown
			p, placed := w.at[a]
			q, alsoPlaced := w.at[b]
			switch {
			case placed && alsoPlaced:
				km = w.all[p].apart(w.all[q])
			case a == b && a != nowhere:
				km = 0
			}
			delays[i*size+j] = time.Duration(1.5 * km / 200 * float64(time.Millisecond))
		}
	}
	return func(from, to int) time.Duration { return delays[int(of[from])*size+int(of[to])] }
}
