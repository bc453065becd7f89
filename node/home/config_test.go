package home

import (
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"village/node/api"
)

func TestNations(t *testing.T) {
	all := Nations()
	if len(all) != 249 {
		t.Fatalf("%d countries, ISO 3166-1 has 249", len(all))
	}
	for i, n := range all {
		if len(n.Code) != 3 || strings.ToUpper(n.Code) != n.Code || len(n.Alpha2) != 2 || n.Name == "" || i > 0 && all[i-1].Code >= n.Code {
			t.Errorf("line %d: %+v", i, n)
		}
	}
	for in, want := range map[string]string{"HUN": "HUN", "hun": "HUN", " che ": "CHE", "nam": "NAM"} {
		if got, err := CheckNation(in); got != want || err != nil {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	for in, meant := range map[string]string{"HU": "HUN (Hungary)", "switzerland": "CHE (Switzerland)", "HUB": "CUB (Cuba)", "": "such as HUN", "XQZJW": "such as HUN"} {
		_, err := CheckNation(in)
		wantCode(t, err, api.CodeUsage, meant)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"peers", "mdns", "members", "listen"}
	for in, want := range map[string]string{"peer": "peers", "mnds": "mdns", "memberz": "members", "x": "", "completely": ""} {
		if got := Nearest(in, words); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

const small = "nation = \"HUN\"\nname = \"x\"\nfederation = \"f\"\n"

func TestConfigErrors(t *testing.T) {
	for in, want := range map[string]string{
		"Nation = \"HUN\"":                                   `line 1: unknown key "Nation"; did you mean "nation"?`,
		small + "\n\nfrobnicate = 1\n":                       `line 6: unknown key "frobnicate"; valid keys are nation, name`,
		small + "peers = 3\n":                                `line 4: the value of "peers" is wrong: it must be a list of strings`,
		small + "mdns = \"no\"\n":                            `line 4: the value of "mdns" is wrong: it must be true or false`,
		small + "[mdns]\nx=1\n":                              `line 4: the value of "mdns" is wrong`,
		small + "[other]\nx=1\n":                             `line 4: unknown key "other"`,
		small + "name = \"y\"\n":                             `line 4: Key 'name' has already been defined`,
		small + "name":                                       `line 4:`,
		small + "members = [\n  \"12D3\"\n]\n":               `line 4: the value of "members" is wrong: "12D3" is not the peer ID`,
		"nation = \"hun\"\nname = \"x\"\nfederation = \"f\"": `nation "hun" must be written "HUN"`,
		"nation = \"HUN\"\n":                                 `the name "" must have`,
		small + "listen = [\"x\"]":                           `"x" is not a multiaddr`,
	} {
		if _, err := ParseConfig([]byte(in)); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "config.toml") {
			t.Errorf("%q:\n got %v\nwant %s", in, err, want)
		}
	}
}

func TestListenAddrs(t *testing.T) {
	c := Config{Listen: []string{"/ip4/127.0.0.1/tcp/1"}}
	if got, err := c.ListenAddrs(); err != nil || !slices.Equal(got, c.Listen) {
		t.Fatalf("%v %v", got, err)
	}
	// Whether or not somebody else holds the default port, it is taken now.
	if l, err := net.Listen("tcp4", ":4811"); err == nil {
		defer l.Close()
	}
	got, err := Config{}.ListenAddrs()
	if err != nil || slices.Equal(got, listenOn(DefaultPort)) || len(got) != 2 {
		t.Fatalf("%v %v", got, err)
	}
}

// FuzzConfig: no document makes the reader panic, and what it accepts is the
// same after writing and reading it again.
func FuzzConfig(f *testing.F) {
	peer := "/ip4/127.0.0.1/tcp/4811/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
	for _, s := range []string{
		"", small, small + "mdns = false\nmembers = []\n", small + "peers = [\"" + peer + "\"]\n",
		small + "members = [\"12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5\"]\n",
		"a.b.c = 1\n[[x]]\n[x.y]\n", "x = {a = [1, {b = 2}]}\n", "\"\" = 1\n", "nation = '''\nHUN'''", "name = \"\\u202e\"",
	} {
		f.Add([]byte(s))
	}
	if _, err := ParseConfig([]byte(small + "peers = [\"" + peer + "\"]\n")); err != nil {
		f.Fatal(err) // the corpus must reach beyond the refusals
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			return
		}
		out, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		// An empty list and none are the same, but for members.
		for _, l := range []*[]string{&c.Listen, &c.Announce, &c.Peers} {
			if len(*l) == 0 {
				*l = nil
			}
		}
		if !reflect.DeepEqual(c, again) {
			t.Fatalf("wrote %+v, read %+v", c, again)
		}
	})
}
