package runs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/berth-run/berth"
)

// disks is Files of a test: infrastructures with what is on their filesystems.
type disks struct {
	mu     sync.Mutex
	mounts map[string][2]string // by infrastructure: the filesystem, and where it is
	files  map[string]string    // by filesystem and path: what is in them
	moved  []string
	away   int // questions that are not answered
}

func newDisks() *disks {
	return &disks{files: map[string]string{}, mounts: map[string][2]string{"shared-1": {"volume", "/data"}, "shared-2": {"volume", "/shared"}, "other": {"another", "/data"}, "bare": {}}}
}

func (d *disks) Target(_ context.Context, spec *berth.TaskSpec) (string, error) {
	return spec.Infrastructure, nil
}

func (d *disks) Filesystem(infrastructure string) (name, mount string) {
	it := d.mounts[infrastructure]
	return it[0], it[1]
}

func (d *disks) Sum(_ context.Context, infrastructure, file string, _ bool) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away > 0 {
		d.away--
		return "", berth.Errorf(berth.CodeUnavailable, "it is away")
	}
	content, there := d.files[d.mounts[infrastructure][0]+file]
	if !there {
		return "", berth.Errorf(berth.CodeNotFound, "there is no %s", file)
	}
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

func (d *disks) Blob(ctx context.Context, infrastructure, file string, directory bool) (berth.Blob, error) {
	digest, err := d.Sum(ctx, infrastructure, file, directory)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.moved = append(d.moved, infrastructure+":"+file)
	}
	return berth.Blob{Digest: digest, Name: file[strings.LastIndex(file, "/")+1:], Directory: directory}, err
}

func (d *disks) Has(_ context.Context, digest string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !strings.HasSuffix(digest, "00"), nil
}

// put puts a file on the filesystem of an infrastructure.
func (d *disks) put(infrastructure, file, content string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[d.mounts[infrastructure][0]+file] = content
}

// tables is a package whose functions take and give files.
var tables = berth.Package{
	Name: "lab/tables", Version: "1.0.0", Digest: "sha256:" + strings.Repeat("1", 64),
	Functions: []berth.Function{
		{Name: "make", Inputs: []berth.Parameter{{Name: "rows", Type: "integer"}}, Outputs: []berth.Parameter{{Name: "table", Type: "File"}}},
		{Name: "split", Inputs: []berth.Parameter{{Name: "table", Type: "File"}}, Outputs: []berth.Parameter{{Name: "parts", Type: "Directory"}, {Name: "count", Type: "integer"}}},
		{Name: "count", Inputs: []berth.Parameter{{Name: "tables", Type: "File[]"}}, Outputs: []berth.Parameter{{Name: "rows", Type: "integer"}}},
	},
}

// filing has an Executor with files, and a run of a program with the package.
func filing(t *testing.T, d *disks, m *memory, c *cluster, id, program string) berth.Run {
	t.Helper()
	c.functions = map[string]func(map[string]json.RawMessage) string{
		"make":  func(map[string]json.RawMessage) string { return `"/data/table.csv"` },
		"split": func(map[string]json.RawMessage) string { return `{"parts":"/data/parts","count":2}` },
		"count": func(map[string]json.RawMessage) string { return "3" },
	}
	m.put(id, "tables = package(\"lab/tables\")\n"+program, func(r *berth.RunRecord) { r.Packages, r.Run.On = []berth.Package{tables}, "" })
	e := New(m, c, d, noLease, slog.New(slog.DiscardHandler))
	defer e.Close()
	e.Take("here")
	return finished(t, e, id)
}

const tableSum = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" // of foo

func TestAFileGoesToWhereTheNextCallIs(t *testing.T) {
	for name, tt := range map[string]struct {
		from, to, want string
		moved          []string
	}{
		"where it is":              {"shared-1", "shared-1", `{"table":"/data/table.csv"}`, nil},
		"the same one, elsewhere":  {"shared-1", "shared-2", `{"table":"/shared/table.csv"}`, nil},
		"another":                  {"shared-1", "other", `{"table":"blob:sha256:` + tableSum + `/table.csv"}`, []string{"shared-1:/data/table.csv"}},
		"none":                     {"other", "bare", `{"table":"blob:sha256:` + tableSum + `/table.csv"}`, []string{"other:/data/table.csv"}},
		"anywhere: where the file": {"other", "", `{"table":"/data/table.csv"}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d, m, c := newDisks(), newMemory(), newCluster()
			d.put(tt.from, "/data/table.csv", "foo")
			on := ""
			if tt.to != "" {
				on = ", on = \"" + tt.to + "\""
			}
			run := filing(t, d, m, c, "r-1", "def main():\n    return tables.split(table = tables.make(rows = 1, on = \""+tt.from+"\")"+on+")[\"count\"]\n")
			to := tt.to
			if to == "" {
				to = tt.from
			}
			want := []string{`make{"rows":1} on ` + tt.from, "split" + tt.want + " on " + to}
			if string(run.Result) != "2" || !slices.Equal(c.done(), want) || !slices.Equal(d.moved, tt.moved) {
				t.Errorf("%s %v, done %q, moved %q", run.Result, run.Error, c.done(), d.moved)
			}
		})
	}
}

// What a directory that a call gave has in it, is where that is.
func TestAFileInADirectoryIsFollowed(t *testing.T) {
	d, m, c := newDisks(), newMemory(), newCluster()
	d.put("other", "/data/table.csv", "foo")
	d.put("other", "/data/parts/1", "foo")
	run := filing(t, d, m, c, "r-1", `
def main():
    parts = tables.split(table = tables.make(rows = 1, on = "other"), on = "other")["parts"]
    return tables.count(tables = [parts + "/1", "/etc/passwd"], on = "shared-1")
`)
	if want := `count{"tables":["blob:sha256:` + tableSum + `/1","/etc/passwd"]} on shared-1`; string(run.Result) != "3" || !slices.Contains(c.done(), want) {
		t.Errorf("%s %v, done %q, not %q", run.Result, run.Error, c.done(), want)
	}
}

// However many calls take a file, it is moved once; one that is made anew is
// moved anew.
func TestAFileIsMovedOnceForAllCallsThatTakeIt(t *testing.T) {
	d, m, c := newDisks(), newMemory(), newCluster()
	d.put("other", "/data/table.csv", "foo")
	run := filing(t, d, m, c, "r-1", `
def main():
    counts = []
    for rows in [1, 2]:
        table = tables.make(rows = rows, on = "other")
        counts += tables.count.map(tables = [[table], [table], [table, "/etc/passwd"]], on = "bare")
    return counts
`)
	if want := []string{"other:/data/table.csv", "other:/data/table.csv"}; string(run.Result) != "[3,3,3,3,3,3]" || !slices.Equal(d.moved, want) {
		t.Errorf("%s %v, moved %q", run.Result, run.Error, d.moved)
	}
}

func TestAFileThatIsGoneWithItsContainerIsAnErrorOfTheCallThatTakesIt(t *testing.T) {
	d, m, c := newDisks(), newMemory(), newCluster()
	run := filing(t, d, m, c, "r-1", "def main():\n    return tables.split(table = tables.make(rows = 1, on = \"bare\"), on = \"other\")\n")
	if run.State != berth.RunFailed || !strings.Contains(run.Error.Message, "callback_to") || len(c.done()) != 1 {
		t.Errorf("%s %v, done %q", run.State, run.Error, c.done())
	}
}

// A call that is replayed gives the paths that it gave, of where it was made.
func TestAFileIsFollowedInTheNextProcess(t *testing.T) {
	d, m, c := newDisks(), newMemory(), newCluster()
	d.put("other", "/data/table.csv", "foo")
	if run := filing(t, d, m, c, "r-1", "def main():\n    return [tables.make(rows = 1, on = \"other\"), run(\"fail\")]\n"); run.State != berth.RunFailed {
		t.Fatalf("%+v", run)
	}
	m.resume("r-1", "tables = package(\"lab/tables\")\ndef main():\n    return tables.split(table = tables.make(rows = 1, on = \"other\"), on = \"bare\")[\"count\"]\n")
	e := New(m, c, d, noLease, slog.New(slog.DiscardHandler))
	defer e.Close()
	e.Take("here")
	if run := finished(t, e, "r-1"); string(run.Result) != "2" || !slices.Equal(d.moved, []string{"other:/data/table.csv"}) {
		t.Errorf("%s %v, moved %q", run.Result, run.Error, d.moved)
	}
}

// What the cache asks for is what is in a file, not where it is.
func TestACachedCallWithFiles(t *testing.T) {
	const program = "def main():\n    return tables.count(tables = [%q], on = \"shared-1\", cache = True)\n"
	d, m, c := newDisks(), newMemory(), newCluster()
	d.put("shared-1", "/data/a", "foo")
	d.put("shared-1", "/data/b", "foo")
	d.put("shared-1", "/data/c", "bar")
	d.away = 2
	counted := func() int {
		n := 0
		for _, text := range c.done() {
			if strings.HasPrefix(text, "count") {
				n++
			}
		}
		return n
	}
	for i, step := range []struct {
		file, content string
		count         int
	}{{"/data/a", "", 1}, {"/data/a", "", 1}, {"/data/b", "", 1}, {"/data/c", "", 2}, {"/data/a", "baz", 3}} {
		if step.content != "" {
			d.put("shared-1", step.file, step.content)
		}
		run := filing(t, d, m, c, "r-"+string(rune('a'+i)), strings.ReplaceAll(program, "%q", "\""+step.file+"\""))
		if string(run.Result) != "3" || counted() != step.count {
			t.Errorf("step %d: %s %v, it was counted %d times", i, run.Result, run.Error, counted())
		}
	}
}

// A result whose file was changed, or is gone, is none any more.
func TestACachedFileThatHasChangedIsMadeAnew(t *testing.T) {
	d, m, c := newDisks(), newMemory(), newCluster()
	d.put("shared-1", "/data/table.csv", "foo")
	for i, content := range []string{"", "", "bar", ""} {
		if content != "" {
			d.put("shared-1", "/data/table.csv", content)
		}
		run := filing(t, d, m, c, "r-"+string(rune('a'+i)), "def main():\n    return tables.make(rows = 1, on = \"shared-1\", cache = True)\n")
		if string(run.Result) != `"/data/table.csv"` {
			t.Errorf("run %d: %s %v", i, run.Result, run.Error)
		}
		if made := len(c.done()); made != []int{1, 1, 2, 2}[i] {
			t.Errorf("run %d: it was made %d times", i, made)
		}
	}
}
