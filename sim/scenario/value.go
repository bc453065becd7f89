package scenario

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"village/sim"
)

// Latency is how long a message is under way: a time between the two, or as
// long as the distance between the nations takes.
type Latency struct {
	Distance bool
	Min, Max time.Duration
}

const latencyForm = "it is distance, or a span as 5ms-50ms"

// UnmarshalText reads "distance", "5ms-50ms" or "20ms".
func (l *Latency) UnmarshalText(b []byte) (err error) {
	if string(b) == "distance" {
		*l = Latency{Distance: true}
		return nil
	}
	from, to, span := strings.Cut(string(b), "-")
	if !span {
		to = from
	}
	*l = Latency{}
	if l.Min, err = time.ParseDuration(from); err == nil {
		l.Max, err = time.ParseDuration(to)
	}
	if err != nil {
		return errors.New(latencyForm)
	}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (l Latency) MarshalText() ([]byte, error) {
	if l.Distance {
		return []byte("distance"), nil
	}
	return []byte(short(l.Min) + "-" + short(l.Max)), nil
}

// Bandwidth is bytes a second; 0 = any amount.
type Bandwidth float64

const bandwidthForm = "it is bytes a second as 500kB, 10MB or 1GB, or 0 for any amount"

var units = []struct {
	name  string
	bytes float64
}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}, {"", 1}} // the longer names first

// UnmarshalText reads a number with a unit.
func (w *Bandwidth) UnmarshalText(b []byte) error {
	for _, u := range units {
		number, ok := strings.CutSuffix(string(b), u.name)
		if !ok {
			continue
		}
		x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil {
			break
		}
		*w = Bandwidth(x * u.bytes)
		return nil
	}
	return errors.New(bandwidthForm)
}

// MarshalText is the inverse of UnmarshalText.
func (w Bandwidth) MarshalText() ([]byte, error) {
	for _, u := range units[:3] {
		if x := float64(w) / u.bytes; x >= 1 && x*u.bytes == float64(w) {
			return []byte(number(x) + u.name), nil
		}
	}
	return []byte(number(float64(w))), nil
}

// Cut is a time in which a share of the nodes is cut off from the others.
type Cut struct {
	From, To time.Duration
	Share    float64
}

const cutForm = "it is from when to when which share of the nodes is cut off, as 2m-5m:0.4; the share is above 0 and below 1"

// UnmarshalText reads "2m-5m:0.4".
func (c *Cut) UnmarshalText(b []byte) (err error) {
	when, share, _ := strings.Cut(string(b), ":")
	from, to, _ := strings.Cut(when, "-")
	if c.From, err = time.ParseDuration(from); err == nil {
		if c.To, err = time.ParseDuration(to); err == nil {
			c.Share, err = strconv.ParseFloat(share, 64)
		}
	}
	if err != nil {
		return errors.New(cutForm)
	}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (c Cut) MarshalText() ([]byte, error) {
	return []byte(short(c.From) + "-" + short(c.To) + ":" + number(c.Share)), nil
}

// Share is a share of the nodes to which something happens at a time. The zero
// value is none.
type Share struct {
	Share float64
	At    time.Duration
}

const shareForm = "it is a share above 0 and at most 1 with a time, as 0.2@30s, or none"

// UnmarshalText reads "0.2@30s" or "none".
func (s *Share) UnmarshalText(b []byte) (err error) {
	*s = Share{}
	if none(b) {
		return nil
	}
	share, at, _ := strings.Cut(string(b), "@")
	if s.Share, err = strconv.ParseFloat(share, 64); err == nil {
		s.At, err = time.ParseDuration(at)
	}
	if err != nil {
		return errors.New(shareForm)
	}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (s Share) MarshalText() ([]byte, error) {
	if s == (Share{}) {
		return []byte("none"), nil
	}
	return []byte(number(s.Share) + "@" + short(s.At)), nil
}

func (s Share) wrong() string {
	return unless(s == Share{} || portion(s.Share) && s.At > 0 && s.At <= maxTime, shareForm)
}

// portion tells whether a share chooses some nodes, or all.
func portion(share float64) bool { return share > 0 && share <= 1 }

// Slow is a share of the nodes whose steps take so many times longer. The zero
// value is none.
type Slow struct {
	Share float64
	Times float64
}

const slowForm = "it is a share above 0 and at most 1, and how many times longer a step takes, as 0.1x10, or none"

// UnmarshalText reads "0.1x10" or "none".
func (s *Slow) UnmarshalText(b []byte) (err error) {
	*s = Slow{}
	if none(b) {
		return nil
	}
	share, times, _ := strings.Cut(string(b), "x")
	if s.Share, err = strconv.ParseFloat(share, 64); err == nil {
		s.Times, err = strconv.ParseFloat(times, 64)
	}
	if err != nil {
		return errors.New(slowForm)
	}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (s Slow) MarshalText() ([]byte, error) {
	if s == (Slow{}) {
		return []byte("none"), nil
	}
	return []byte(number(s.Share) + "x" + number(s.Times)), nil
}

// Hostile is a share of the nodes that attack. The zero value is none.
type Hostile struct {
	Share  float64
	Attack sim.Attack
}

func hostileForm() string {
	names := make([]string, len(sim.Attacks))
	for i, a := range sim.Attacks {
		names[i] = string(a)
	}
	return "it is a share above 0 and at most 1 with an attack, as 0.2:sign-flip, or none; the attacks are " + strings.Join(names, ", ")
}

// UnmarshalText reads "0.2:sign-flip" or "none".
func (h *Hostile) UnmarshalText(b []byte) (err error) {
	*h = Hostile{}
	if none(b) {
		return nil
	}
	share, attack, _ := strings.Cut(string(b), ":")
	h.Attack = sim.Attack(attack)
	if h.Share, err = strconv.ParseFloat(share, 64); err != nil {
		return errors.New(hostileForm())
	}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (h Hostile) MarshalText() ([]byte, error) {
	if h == (Hostile{}) {
		return []byte("none"), nil
	}
	return []byte(number(h.Share) + ":" + string(h.Attack)), nil
}

func none(b []byte) bool { return len(b) == 0 || string(b) == "none" }

// parse reads words into the value that p points to.
func parse(p any, words []string) (err error) {
	switch p := p.(type) {
	case *string:
		*p = words[0]
	case *[]string:
		*p = words
		if len(words) == 0 {
			*p = nil // as by default
		}
	case *[]Cut:
		*p = nil
		for _, w := range words {
			var c Cut
			if none([]byte(w)) {
				continue
			}
			if err := c.UnmarshalText([]byte(w)); err != nil {
				return err
			}
			*p = append(*p, c)
		}
	case *int:
		if *p, err = strconv.Atoi(words[0]); err != nil {
			return errors.New("it is a whole number")
		}
	case *[]int:
		list := make([]int, len(words))
		for i, word := range words {
			if list[i], err = strconv.Atoi(strings.TrimSpace(word)); err != nil || list[i] < 1 {
				return errors.New("it is a list of whole numbers, 1 or more")
			}
		}
		*p = list
	case *bool:
		if *p, err = strconv.ParseBool(words[0]); err != nil {
			return errors.New("it is true or false")
		}
	case *uint64:
		if *p, err = strconv.ParseUint(words[0], 10, 64); err != nil {
			return errors.New("it is a whole number, 0 or more")
		}
	case *float64:
		if *p, err = strconv.ParseFloat(words[0], 64); err != nil {
			return errors.New("it is a number")
		}
	case *time.Duration:
		if *p, err = time.ParseDuration(words[0]); err != nil {
			return errors.New("it is a time as 100ms, 30s, 5m or 2h")
		}
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(words[0]))
	default:
		panic(fmt.Sprintf("a key of type %T", p))
	}
	return nil
}

// plain returns the value that p points to as TOML has it.
func plain(p any) any {
	switch p := p.(type) {
	case *string:
		return *p
	case *[]string:
		return *p
	case *[]Cut:
		list := []string{}
		for _, c := range *p {
			list = append(list, text(&c))
		}
		return list
	case *[]int:
		list := []string{}
		for _, n := range *p {
			list = append(list, strconv.Itoa(n))
		}
		return list
	case *int:
		return *p
	case *bool:
		return *p
	case *uint64:
		return *p
	case *float64:
		return *p
	case *time.Duration:
		return short(*p)
	case encoding.TextMarshaler:
		b, err := p.MarshalText()
		if err != nil {
			panic(err) // those of this package do not fail
		}
		return string(b)
	}
	panic(fmt.Sprintf("a key of type %T", p))
}

// text returns the value that p points to as the command line has it.
func text(p any) string {
	switch v := plain(p).(type) {
	case []string:
		return strings.Join(v, ",")
	case float64:
		return number(v)
	default:
		return fmt.Sprint(v)
	}
}

// number writes a number as short as it reads back.
func number(x float64) string {
	if x == math.Trunc(x) && math.Abs(x) < 1e9 {
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}

// short writes 2m0s as 2m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// nearest returns the name that a mistyped one was most likely meant to be, or "".
func nearest(typed string, names []string) string {
	if len(typed) > 64 {
		return ""
	}
	best, found := max(2, len(typed)/3)+1, ""
	for _, name := range names {
		if d := distance(strings.ToLower(typed), strings.ToLower(name)); d < best {
			best, found = d, name
		}
	}
	return found
}

// distance is how many bytes are to be inserted, deleted or changed to make b of
// a (Levenshtein 1965).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(row[j+1]+1, row[j]+1, change)
		}
	}
	return row[len(b)]
}
