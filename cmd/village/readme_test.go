package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// readme returns the section of README.md under a heading of the second level.
func readme(t *testing.T, heading string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(b), "\n## "+heading)
	if !found {
		t.Fatalf("README.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// blocks returns the fenced blocks of a language.
func blocks(markdown, language string) (list []string) {
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(markdown, -1) {
		if m[1] == language {
			list = append(list, m[2])
		}
	}
	return list
}

// TestReadmeCommands runs README's sh blocks as they are printed. A block that
// runs daemons ends them; should it fail before, the test does.
func TestReadmeCommands(t *testing.T) {
	for _, tour := range []struct {
		heading string
		blocks  int
		says    []string // patterns of lines, in this order
	}{
		{"A tour by hand", 11, []string{
			`^age,pressure,smoker,sick$`, `^ready 12D3`, `^listens on +/ip4`, `^ready 12D3`, `12D3.* yes `,
			`patients +CHE +Zurich`, `patients +HUN +Budapest`,
			`^rows +59$`, `^smoker +feature +categorical +levels no, yes$`,
			`^joined with dataset .* 284 rows to train, 112 to test$`,
			`^federation +village-.*, open`, `risk: enrolling, waiting for CHE Zurich$`, `^done, model baf`,
			`^baf.* risk +logistic`, `^baf.* risk +logistic`,
			`^(CHE Zurich +43 +16|HUN Budapest +284 +112) `, `^(CHE Zurich +43 +16|HUN Budapest +284 +112) `, `^all rows +327 +128 `,
			`^prediction,probability_no,probability_yes$`, `^no,0\.99`, `model\.safetensors$`, `model\.onnx$`, `card\.md$`,
			`^done, model baf`, `^baf.* yes +baf|^baf.* no +baf`,
			`^federation +village-.*, closed`,
		}},
		{"Without a network", 1, []string{
			`^mixing-graphs `, `^pisa `,
			`^nodes +8$`, `^rounds +50$`, `^all rows +486 +254 `, `^scenario +four-hospitals$`, `^USA cleveland +199 +104 `, `^all rows +486 +254 +0\.768 0\.795 0\.799 `,
			`^loss=0 +0\.768 ± 0\.000 +0\.795 ± `, `^loss=0\.3 .* MB `,
		}},
	} {
		t.Run(tour.heading, func(t *testing.T) {
			scripts := blocks(readme(t, tour.heading), "sh")
			if len(scripts) != tour.blocks {
				t.Errorf("%d sh blocks, want %d", len(scripts), tour.blocks)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			dir := t.TempDir()
			cmd := exec.CommandContext(ctx, "sh", "-eu", "-c",
				`trap 'find "$TMPDIR" -name "*.pid" -exec cat {} + | xargs kill -9 2>/dev/null || true' EXIT`+"\n"+strings.Join(scripts, "\n"))
			cmd.Dir = root
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
			cmd.WaitDelay = 10 * time.Second
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, &stderr)
			}
			lines := strings.Split(string(out), "\n")
			for _, pattern := range tour.says {
				i := slices.IndexFunc(lines, regexp.MustCompile(pattern).MatchString)
				if i < 0 {
					t.Fatalf("no line %q, in this order, in\n%s\n%s", pattern, out, &stderr)
				}
				lines = lines[i+1:]
			}
		})
	}
}

// TestReadmeRooms: README's picture of the rooms names every package, and no
// other.
func TestReadmeRooms(t *testing.T) {
	picture := blocks(readme(t, "The rooms"), "")[0]
	var drawn []string
	room := ""
	for _, line := range strings.Split(strings.TrimSpace(picture), "\n") {
		name := strings.TrimSuffix(strings.Fields(line)[0], "/")
		if strings.HasPrefix(line, " ") {
			drawn = append(drawn, room+"/"+name)
		} else {
			room = name
			drawn = append(drawn, name)
		}
	}
	own, _ := packages(t)
	for name := range own {
		if !slices.Contains(drawn, name) {
			t.Errorf("README.md does not name the package %s", name)
		}
	}
	for _, name := range drawn {
		if _, ok := own[name]; !ok && name != "protocol" {
			t.Errorf("README.md names %s, which is no package", name)
		}
	}
}
