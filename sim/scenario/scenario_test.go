package scenario

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"village/sim"
)

func TestSetRefuses(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"lss", "0.1", `unknown key "lss"; did you mean "loss"?`},
		{"Rounds", "3", `did you mean "rounds"?`},
		{"thequickbrownfox", "1", "the keys are about, data, "},
		{"loss", "1", "loss = 1: it is at least 0 and below 1"},
		{"loss", "-0.1", "below 1"},
		{"loss", "NaN", "below 1"},
		{"loss", "much", "loss = much: it is a number"},
		{"duplicate", "1.5", "it is 0 to 1"},
		{"nodes", "-1", "it is 1 to 100000"},
		{"nodes", "four", "whole number"},
		{"rows", "-3", "1 or more"},
		{"rounds", "0", "it is 1 to 1000000"},
		{"rounds", "-1", "whole number"},
		{"local-steps", "0", "it is 1 to"},
		{"learning-rate", "0", "above 0"},
		{"learning-rate", "+Inf", "at most 1e6"},
		{"batch", "99999999999", "it is 0 to 2147483647"},
		{"l2", "-1", "0 to 1e6"},
		{"tolerance", "NaN", "0 or above"},
		{"mixing", "star", "ring"},
		{"model", "forest", "linear, logistic, softmax or mlp"},
		{"seed", "18446744073709551615", "below 2^63"},
		{"latency", "far", "distance, or a span as 5ms-50ms"},
		{"latency", "50ms-5ms", "5ms-50ms"},
		{"latency", "0s-0s", "5ms-50ms"},
		{"bandwidth", "10 elephants", "500kB, 10MB or 1GB"},
		{"bandwidth", "-1MB", "500kB, 10MB or 1GB"},
		{"bandwidth", "NaNMB", "500kB, 10MB or 1GB"},
		{"apart", "2m-5m", "as 2m-5m:0.4"},
		{"apart", "5m-2m:0.4", "as 2m-5m:0.4"},
		{"apart", "2m-5m:1", "below 1"},
		{"apart", "1s-2s:0.1,x", "as 2m-5m:0.4"},
		{"restarts", "-1", "0.001 to 3600"},
		{"restarts", "1e-10", "0.001 to 3600"},
		{"down", "0s", "above 0"},
		{"down", "10", "a time as 100ms"},
		{"late", "0.2", "as 0.2@30s"},
		{"late", "1.2@30s", "at most 1"},
		{"leave", "0@30s", "as 0.2@30s"},
		{"die", "0.2@-3s", "as 0.2@30s"},
		{"slow", "0.1", "as 0.1x10"},
		{"slow", "0.1x0.5", "as 0.1x10"},
		{"step", "0s", "above 0 and at most 24h"},
		{"hostile", "0.2:bribery", "the attacks are sign-flip, scaled, label-flip, a-little-is-enough, nan"},
		{"hostile", "2:nan", "at most 1"},
		{"partition", "by-hand", "column:COL, iid, dirichlet:ALPHA"},
		{"partition", "column:", "column:COL"},
		{"partition", "dirichlet:0", "from 0.001"},
		{"partition", "dirichlet:NaN", "from 0.001"},
		{"partition", "shards:0", "shards:K"},
		{"data", "synthetic:9", "synthetic:ROWSxFEATURES"},
		{"data", "synthetic:1000000000x1000", "synthetic:ROWSxFEATURES"},
		{"features", `a,"b`, "double quotes"},
		{"hidden", "16,0", "whole numbers, 1 or more"},
		{"hidden", "16,wide", "whole numbers, 1 or more"},
		{"optimizer", "lion", "momentum or adam"},
		{"prox", "-1", "0 to 1e6"},
		{"prox", "NaN", "0 to 1e6"},
		{"scaffold", "maybe", "true or false"},
		{"outer", "momentum", "nesterov, adam or yogi"},
		{"outer-rate", "-1", "0 to 1000"},
		{"personal", "all", "bias or last-layer"},
		{"auto", "1", "it is 2 to 64, or 0"},
		{"auto", "65", "it is 2 to 64, or 0"},
		{"within", "-1s", "at most 30 days"},
		{"within", "1000h", "at most 30 days"},
	} {
		s, before := New(), New()
		err := s.Set(c.key, c.value)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %s: error %v, want one with %q", c.key, c.value, err, c.want)
		}
		if !reflect.DeepEqual(s, before) {
			t.Errorf("%s = %s is refused and changes the scenario", c.key, c.value)
		}
	}
}

func TestSetReads(t *testing.T) {
	s := New()
	for key, value := range map[string]string{
		"features": `age, "weight, kg",sex`, "latency": "20ms", "bandwidth": "1.5MB", "apart": "1s-2m:0.5,3m-4m:0.25",
		"late": "0.2@30s", "slow": "0.1x10", "hostile": "0.25:sign-flip", "down": "90s", "partition": "column:a:b",
		"hidden": "64, 32", "scaffold": "true", "within": "90m", "auto": "16", "outer-rate": "0.5",
	} {
		if err := s.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	want := New()
	want.Features = []string{"age", "weight, kg", "sex"}
	want.Latency = Latency{Min: 20 * time.Millisecond, Max: 20 * time.Millisecond}
	want.Bandwidth = 1.5e6
	want.Apart = []Cut{{time.Second, 2 * time.Minute, 0.5}, {3 * time.Minute, 4 * time.Minute, 0.25}}
	want.Late = Share{0.2, 30 * time.Second}
	want.Slow = Slow{0.1, 10}
	want.Hostile = Hostile{0.25, sim.SignFlip}
	want.Down, want.Partition = 90*time.Second, "column:a:b"
	want.Hidden, want.Scaffold, want.Within, want.Auto, want.OuterRate = []int{64, 32}, true, 90*time.Minute, 16, 0.5
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	for key, value := range map[string]string{"apart": "none", "late": "none", "slow": "none", "hostile": "none", "features": ""} {
		if err := s.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	if s.Apart != nil || s.Late != (Share{}) || s.Slow != (Slow{}) || s.Hostile != (Hostile{}) || s.Features != nil {
		t.Errorf("none leaves %+v", s)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"seed = 1\n\nlos = 0.3":                          `study.toml, line 3: unknown key "los"; did you mean "loss"?`,
		"seed = 1\nloss = 1":                             "study.toml, line 2: loss = 1: it is at least 0 and below 1",
		"# why\nnodes = \"many\"":                        "study.toml, line 2: nodes = many: it is a whole number",
		"nodes = true":                                   "study.toml, line 1: nodes = true: it is a whole number",
		"scaffold = 1.5":                                 "study.toml, line 1: scaffold = 1.5: it is true or false",
		"hidden = [16, true]":                            "study.toml, line 1: hidden is a number, a text or a list of texts",
		"seed = 1979-05-27":                              "study.toml, line 1: seed is a number, a text or a list of texts",
		"features = [[1]]":                               "study.toml, line 1: features is a number",
		"rounds = [1, 2]":                                "rounds takes one value, not the list 1,2",
		"loss = inf":                                     "below 1",
		"[faults]\nloss = 0.1":                           `line 1: unknown key "faults"`,
		"loss = ":                                        "study.toml, line 1",
		"loss = 0.1\nloss = 0.2":                         "study.toml, line 2",
		"mixing = \"ring\"\nvary = [\"los=0,1\"]":        `study.toml, line 2: vary = los=0,1: unknown key "los"; did you mean "loss"?`,
		"vary = [\"loss=0,1\"]":                          "line 1: vary: loss = 1",
		"vary = [\"loss\"]":                              "key with values, as mixing=all,ring",
		"vary = [\"loss=\"]":                             "no values",
		"vary = [\"loss=0,0\"]":                          "stands there twice",
		"vary = [\"loss=0,0.1\", \"loss=0.2\"]":          "varied twice",
		"vary = [\"vary=a\"]":                            "cannot be varied",
		"about = \"" + strings.Repeat("x", 1<<20) + "\"": "at most 65536 bytes",
		"data = " + strings.Repeat("{a=", 20_000):        "no tables",
	} {
		if _, err := Decode("dir/study.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %v, want one with %q", text, err, want)
		}
	}
}

func TestDecode(t *testing.T) {
	s, err := Decode("dir/study.toml", []byte(`
about = "what it shows"
vary = ["mixing=ring,torus"]
mixing = "exponential"
data = "patients.csv"
features = ["age", "weight, kg"]
nodes = 1_000
loss = 0
l2 = 1
hidden = [64, 32]
scaffold = true
latency = "distance"
apart = ["2m-5m:0.4"]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := New()
	want.Name, want.About, want.Data, want.Nodes, want.L2 = "study", "what it shows", "patients.csv", 1000, 1
	want.Hidden, want.Scaffold = []int{64, 32}, true
	want.Features, want.Latency = []string{"age", "weight, kg"}, Latency{Distance: true}
	want.Apart, want.Vary, want.Mixing = []Cut{{2 * time.Minute, 5 * time.Minute, 0.4}}, []string{"mixing=ring,torus"}, "exponential"
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	// A flag is the only value then.
	if err := s.Set("mixing", "base:2"); err != nil || s.Mixing != "base:2" || len(s.Vary) != 0 {
		t.Errorf("%v: mixing %s, vary %q", err, s.Mixing, s.Vary)
	}
}

// values are possible values of keys.
var values = map[string][]string{
	"about": {"what it shows", "\"quoted\" \\ \t end"}, "data": {"heart", "a file.csv", "synthetic:100x3"}, "columns": {"a,b", `"a, b",c`}, "target": {"y"},
	"features": {"a", "a,b"}, "categorical": {"a"}, "ignore": {"c,d"}, "split": {"s"}, "positive": {"1", "yes"},
	"partition": {"iid", "column:site", "dirichlet:0.3", "shards:2"}, "nodes": {"7"}, "rows": {"30"}, "rounds": {"1", "1000"},
	"local-steps": {"3"}, "learning-rate": {"0.001", "1e-7", "3"}, "batch": {"4"}, "l2": {"0", "0.25"}, "tolerance": {"1e-9"},
	"mixing": {"ring", "base:2"}, "model": {"softmax"}, "seed": {"0", "9223372036854775807"}, "latency": {"distance", "1ms-1m30s", "5ms"},
	"bandwidth": {"10MB", "1.5kB", "999", "0.1GB", "1234567.5B"}, "loss": {"0.3"}, "duplicate": {"1"}, "apart": {"1s-2h0m3s:0.4", "1s-2s:0.1,3s-4s:0.2"},
	"restarts": {"0.5"}, "down": {"1h0m5s", "1h", "2m"}, "late": {"0.2@30s"}, "leave": {"1@1m"}, "die": {"0.1@90s"}, "slow": {"0.1x2.5"},
	"numeric": {"b", "b,c"}, "hidden": {"16", "64,32"}, "optimizer": {"momentum", "adam"}, "prox": {"0.1"}, "scaffold": {"true", "false"},
	"outer": {"nesterov", "adam", "yogi"}, "outer-rate": {"0.7", "1e-3"}, "personal": {"bias", "last-layer"}, "sensitive": {"sex"},
	"auto": {"0", "2", "64"}, "within": {"90m", "30s"},
	"step": {"1ms"}, "hostile": {"0.2:nan"}, "vary": {"loss=0,0.1"},
}

// Whatever the keys say, the file that is written says the same.
func TestEncodeReplays(t *testing.T) {
	for _, k := range keys {
		if len(values[k.name]) == 0 {
			t.Errorf("key %s is not tested", k.name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		s.Name = "as-run"
		for _, k := range keys {
			if !rapid.Bool().Draw(t, k.name) {
				continue
			}
			if err := s.Set(k.name, rapid.SampledFrom(values[k.name]).Draw(t, "value")); err != nil {
				t.Fatal(err)
			}
		}
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode("as-run.toml", b)
		if err != nil {
			t.Fatalf("%v:\n%s", err, b)
		}
		if !reflect.DeepEqual(again, s) {
			t.Fatalf("got  %+v\nwant %+v\n%s", again, s, b)
		}
	})
	b, err := New().Encode()
	if err != nil || string(b) != "data = \"\"\nseed = 1\n" {
		t.Errorf("a scenario without a key is %q, %v", b, err)
	}
}

func TestKeys(t *testing.T) {
	s := New()
	for _, k := range Keys() {
		if k.Help == "" || strings.Contains(k.Help, "\n") {
			t.Errorf("%s: help %q", k.Name, k.Help)
		}
		if k.Default != "" {
			if err := s.Set(k.Name, k.Default); err != nil {
				t.Errorf("the default is refused: %v", err)
			}
		}
	}
	if !reflect.DeepEqual(s, New()) {
		t.Errorf("the defaults make %+v", s)
	}
	if err := s.check(); err != nil {
		t.Error(err)
	}
}

func TestVary(t *testing.T) {
	s := New()
	s.Vary = []string{"loss=0,0.3", "nodes=4"}
	runs, err := Vary(s, []string{"mixing=all,ring", "loss=0.1,0.2"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range runs {
		if r.Vary != nil || r.Nodes != 4 {
			t.Errorf("run %+v", r)
		}
		got = append(got, strings.Join([]string{r.Label, r.Mixing, number(r.Loss), number(float64(r.Seed))}, "|"))
	}
	want := "nodes=4 mixing=all loss=0.1|all|0.1|1;nodes=4 mixing=all loss=0.1|all|0.1|2;" +
		"nodes=4 mixing=all loss=0.2|all|0.2|1;nodes=4 mixing=all loss=0.2|all|0.2|2;" +
		"nodes=4 mixing=ring loss=0.1|ring|0.1|1;nodes=4 mixing=ring loss=0.1|ring|0.1|2;" +
		"nodes=4 mixing=ring loss=0.2|ring|0.2|1;nodes=4 mixing=ring loss=0.2|ring|0.2|2"
	if strings.Join(got, ";") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ";"), want)
	}
	for _, c := range []struct {
		vary  string
		seeds int
		want  string
	}{
		{"loss=0", 0, "seeds = 0"}, {"loss=0", 1001, "more than 1000 runs"}, {"loss=0,0.1", 501, "more than 1000 runs"}, {"loss=0,2", 1, "loss = 2"},
	} {
		if _, err := Vary(New(), []string{c.vary}, c.seeds); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %d seeds: error %v, want one with %q", c.vary, c.seeds, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("data = \"heart\"\nloss = 0.3\nvary = [\"mixing=all,ring\"]\napart = [\"1s-2s:0.5\"]"))
	f.Add([]byte("[a]\nb = [1, \"x\", 2.5]\nlatency = \"distance\"\nbandwidth = \"1GB\""))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode("fuzz.toml", b)
		if err != nil {
			return
		}
		text, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode("fuzz.toml", text)
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, again, s)
		}
	})
}
