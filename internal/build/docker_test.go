package build

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/internal/pack"
)

// told is what an Engine streams of a build: lines of output, and a failure.
func told(t *testing.T, code int, lines ...string) string {
	t.Helper()
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	for _, line := range lines {
		if err := encoder.Encode(map[string]any{"stream": line}); err != nil {
			t.Fatal(err)
		}
	}
	if err := encoder.Encode(map[string]any{"error": "it failed", "errorDetail": map[string]any{"code": code, "message": "it failed"}}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAFailedBuildSaysWhichLineAndWhy(t *testing.T) {
	d := &pack.Definition{Path: "container.yml", Install: []pack.Line{{Text: "good", Line: 6}, {Text: "bad", Line: 7}}}
	steps := dockerfile(d, "base:1")
	begin := []string{"Step 1/6 : FROM base:1", "Step 2/6 : USER 0:0", "Step 3/6 : RUN good", "well\n", "Step 4/6 : RUN bad"}
	const head = "container.yml:7: the command ended with exit code 3 (install: bad)"
	for name, test := range map[string]struct {
		output []string
		want   string
	}{
		"its own output":           {[]string{"why\n"}, head + ":\n  why"},
		"none":                     {nil, head},
		"colours":                  {[]string{"\x1b[91mwhy\n\x1b[0m", "\x1b[1;31mand\x1b[0m\n"}, head + ":\n  why\n  and"},
		"what looks like steps":    {[]string{"Step 1/2 : one\n", "Step 99/99 : two\n"}, head + ":\n  Step 1/2 : one\n  Step 99/99 : two"},
		"the end of much":          {append(slices.Repeat([]string{"much\n"}, 100_000), "why\n"), head + ":\n" + strings.Repeat("  much\n", 19) + "  why"},
		"what isn't a command's":   {[]string{" ---> 0123\n", "Removing intermediate container 1\n", "why\n"}, head + ":\n  why"},
		"twenty lines at the most": {slices.Repeat([]string{"more\n"}, 25), head + ":\n" + strings.TrimSuffix(strings.Repeat("  more\n", 20), "\n")},
	} {
		t.Run(name, func(t *testing.T) {
			err := follow(strings.NewReader(told(t, 3, append(begin[:len(begin):len(begin)], test.output...)...)), d, Options{}, steps)
			if err == nil || err.Error() != test.want {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
		})
	}
}
