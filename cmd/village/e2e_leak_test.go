package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"village/node/api"
	"village/protocol/record"
)

// canary is a cell or a name that must stay at home, in every form in which it
// could be found elsewhere.
type canary struct {
	text  string
	forms [][]byte
}

func textCanary(text string) canary { return canary{text, [][]byte{[]byte(text)}} }

// numberCanary is found as text, and as float64 in either order of bytes.
func numberCanary(text string) canary {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(err)
	}
	bits := math.Float64bits(v)
	return canary{text, [][]byte{
		[]byte(text), binary.BigEndian.AppendUint64(nil, bits), binary.LittleEndian.AppendUint64(nil, bits),
	}}
}

// found returns the canaries that are in b.
func found(canaries []canary, b []byte) (texts []string) {
	for _, c := range canaries {
		if slices.ContainsFunc(c.forms, func(form []byte) bool { return bytes.Contains(b, form) }) {
			texts = append(texts, c.text)
		}
	}
	return texts
}

// TestRowsStayAtHome: through a whole task no cell, no name of a column that is
// left out and no rare level comes to another node: into no message that is
// gossiped, no file and no answer. What crosses the wire beside gossip are the
// same records, which the other nodes hold as the bytes that they got.
func TestRowsStayAtHome(t *testing.T) {
	for _, ignore := range []bool{false, true} {
		t.Run(fmt.Sprintf("ignore=%v", ignore), func(t *testing.T) {
			t.Parallel()
			s := federation(t, "budapest", "zurich", "bern")
			owner, partner, eavesdropper := s[0], s[1], s[2]
			connect(s...)
			heard := listen(t, s...)

			// Every column of the owner's file holds canaries.
			r := rand.New(rand.NewPCG(7, 7))
			var rows strings.Builder
			var kept, hidden []canary // kept are rows at home; hidden, not even that
			left := func(c canary) string {
				hidden = append(hidden, c)
				return c.text
			}
			rows.WriteString("reading,sick," + left(textCanary("canary-column-note")) + ",ward,canary-serial\n")
			if ignore {
				hidden = append(hidden, textCanary("canary-serial"))
			}
			for i := range 90 {
				reading := numberCanary(fmt.Sprintf("%d.%09d7", 50+r.IntN(50), r.IntN(1e9)))
				kept = append(kept, reading)
				ward := "common"
				if i%15 == 0 {
					ward = "canary-rare-ward"
				}
				serial := numberCanary(strconv.Itoa(1e8 + r.IntN(9e8)))
				if ignore {
					hidden = append(hidden, serial)
				} else {
					kept = append(kept, serial)
				}
				fmt.Fprintf(&rows, "%s,%s,%s,%s,%s\n", reading.text, []string{"no", "yes"}[r.IntN(2)],
					left(textCanary(fmt.Sprintf("canary-note-%03d", i))), ward, serial.text)
			}
			kept = append(kept, textCanary("canary-rare-ward"))
			flags := []string{"--target", "sick"}
			if ignore {
				flags = append(flags, "--ignore", "canary-serial")
			}
			dataset := owner.add("ward", file(t, rows.String()), flags...)
			var other strings.Builder
			if ignore {
				other.WriteString("reading,sick,count\n")
			} else {
				other.WriteString("reading,sick,canary-serial\n")
			}
			for i := range 60 {
				fmt.Fprintf(&other, "%d.5,%s,%d\n", 40+r.IntN(70), []string{"no", "yes"}[r.IntN(2)], i)
			}
			partner.add("ward", file(t, other.String()), "--target", "sick")
			owner.sees(dataset)
			partner.sees(dataset)
			eavesdropper.sees(dataset)
			var list api.Datasets
			eventually(t, "the proposer lists both datasets", func() bool {
				eavesdropper.json(&list, "dataset", "list")
				return len(list.Datasets) == 2
			})
			id := eavesdropper.propose(s[:2], "--target", "sick", "--rounds", "10")
			owner.join(id)
			partner.join(id)
			cid := model(t, id, s...)

			secret := slices.Concat(kept, hidden)
			kinds := map[record.Kind]bool{}
			eventually(t, "every kind of record was gossiped", func() bool {
				for {
					select {
					case message := <-heard:
						if texts := found(secret, message); texts != nil {
							t.Errorf("%q was gossiped", texts)
						}
						r, err := record.Open(message, "")
						if err != nil {
							t.Error(err)
						}
						kinds[r.Kind] = true
					default:
						return !slices.ContainsFunc([]record.Kind{
							record.KindManifest, record.KindTask, record.KindEnrolment, record.KindUpdate, record.KindEvaluation,
							record.KindProposal, record.KindPrevote, record.KindPrecommit, record.KindSeal,
						}, func(k record.Kind) bool { return !kinds[k] })
					}
				}
			})
			for _, site := range s[1:] {
				for path, answer := range answers(t, site, dataset, id, cid) {
					if texts := found(secret, answer); texts != nil {
						t.Errorf("%s answers %s with %q", site.home, path, texts)
					}
				}
			}
			// What the owner shows of the dataset is what it has published.
			for _, args := range [][]string{{"dataset", "show", dataset, "--json"}, {"dataset", "show", dataset}, {"dataset", "list", "--json"}} {
				if texts := found(secret, []byte(owner.ok(args...))); texts != nil {
					t.Errorf("the owner's %s shows %q", args[:2], texts)
				}
			}
			atHome := map[string]bool{}
			for i, site := range s {
				site.kill() // with all that is still in its log
				err := filepath.WalkDir(site.home, func(path string, d fs.DirEntry, err error) error {
					if err != nil || !d.Type().IsRegular() {
						return err
					}
					b, err := os.ReadFile(path)
					if err != nil {
						return err
					}
					b = bytes.TrimRight(b, "\x00") // files are as long as they may become
					if i > 0 {
						if texts := found(secret, b); texts != nil {
							t.Errorf("%s holds %q", path, texts)
						}
						return nil
					}
					for _, text := range found(kept, b) {
						atHome[text] = true
					}
					if texts := found(hidden, b); texts != nil {
						t.Errorf("%s holds %q, which is left out of everything", path, texts)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			// The search can find what is there.
			for _, c := range kept {
				if !atHome[c.text] {
					t.Errorf("%q is not found even at home", c.text)
				}
			}
		})
	}
}

// listen returns what is gossiped in the sites' federation from now on.
func listen(t *testing.T, sites ...*site) <-chan []byte {
	t.Helper()
	messages, err := stranger(t, sites...).Subscribe(pubsub.WithBufferSize(4096))
	if err != nil {
		t.Fatal(err)
	}
	heard, end := make(chan []byte, 4096), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(end)
		for {
			m, err := messages.Next(ctx)
			if err != nil {
				return
			}
			heard <- m.GetData()
		}
	}()
	t.Cleanup(func() { cancel(); <-end })
	return heard
}

// answers are the raw bytes of all that a daemon's API tells, by path.
func answers(t *testing.T, s *site, dataset, task, model string) map[string][]byte {
	t.Helper()
	socket, err := os.ReadFile(filepath.Join(s.home, api.AddressFile))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimSpace(string(socket)))
		},
	}}
	defer client.CloseIdleConnections()
	all := map[string][]byte{}
	for _, pattern := range []string{
		api.GetID.Pattern(), api.GetStatus.Pattern(), api.ListPeers.Pattern(), api.ListMembers.Pattern(),
		api.ListDatasets.Pattern(), api.ShowDataset.Pattern(), api.ListTasks.Pattern(), api.ShowTask.Pattern(), "GET " + api.PathWatch,
		api.ListModels.Pattern(), api.ShowModel.Pattern(), api.ReportModel.Pattern(), "GET " + api.PathBytes,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		id := model
		switch strings.Split(path, "/")[2] {
		case "datasets":
			id = dataset
		case "tasks":
			id = task
		}
		path = strings.Replace(path, "{id}", id, 1)
		req, err := http.NewRequest(method, "http://village"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(api.Header, api.HeaderValue)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v\n%s", path, res.Status, err, b)
		}
		all[path] = b
	}
	return all
}
