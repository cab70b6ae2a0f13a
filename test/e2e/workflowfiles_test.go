//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth"
)

// tableFunctions make, split and count tables, which are files.
const tableFunctions = `make:
  command: {args: [make]}
  input: [{name: rows, type: integer}]
  output: [{name: table, type: File}]
split:
  command: {args: [split]}
  input: [{name: table, type: File}]
  output: [{name: parts, type: Directory}]
count:
  command: {args: [count]}
  input: [{name: parts, type: Directory}, {name: tables, type: "File[]", default: []}]
  output: [{name: rows, type: integer}]
`

const tableProgram = `case $1 in
make) seq "$ROWS" > "$BERTH_WORK/table.csv"; echo "table: $BERTH_WORK/table.csv" ;;
split) mkdir "$BERTH_WORK/parts" && cd "$BERTH_WORK/parts" && split -l 2 "$TABLE" && echo "parts: $PWD" ;;
count) echo "rows: $(cat "$PARTS"/* | wc -l)" ;;
esac
`

// handing is an office with two infrastructures in namespaces of their own.
func handing(t *testing.T, first, second string, profiles ...string) *office {
	t.Helper()
	profiles = append(profiles, "functions")
	o, other := officeOf(newSite(t, profiles...), true, ""), newSite(t, profiles...)
	common := "registry: " + o.address + "\ncallback_to: " + o.address + "\n"
	for _, s := range []*site{o.site, other} {
		if err := os.Chmod(s.share("shared"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	o.write("infra.yml", "infrastructures:\n"+entryOf("site-a", o.namespace, o.kubeconfig, common+first)+entryOf("site-b", other.namespace, other.kubeconfig, common+second))
	o.script("tables", tableProgram, tableFunctions)
	return o
}

const tableWorkflow = `
tables = package("tables")

def main(rows):
    table = tables.make(rows = rows, on = "site-a", cache = True)
    parts = tables.split(table = table, on = "site-b", cache = True)
    return {"table": table, "parts": parts, "rows": tables.count(parts = parts, on = "site-a", cache = True)}
`

// madeTables is what the workflow gives.
type madeTables struct {
	Table, Parts string
	Rows         int
}

func (o *office) tables() (got madeTables) {
	o.t.Helper()
	if err := json.Unmarshal(o.newest().Result, &got); err != nil {
		o.t.Fatal(err)
	}
	return got
}

// cached runs the workflow once more, and says how many of its calls were
// answered by the cache.
func (o *office) cached(rows string) int {
	o.t.Helper()
	o.must("workflow", "run", "tables.star", "rows="+rows)
	n := 0
	for _, call := range o.newest().AllCalls {
		if call.Cached != nil {
			n++
		}
	}
	return n
}

// What no filesystem is shared for goes through the registry, also to where
// somebody wants it who is at neither site.
func TestWorkflowWhoseFilesGoThroughTheRegistry(t *testing.T) {
	t.Parallel()
	o := handing(t, "", "")
	o.write("tables.star", tableWorkflow)
	o.must("workflow", "run", "tables.star", "rows=5")
	got := o.tables()
	table, is := berth.ParseBlob(got.Table)
	parts, are := berth.ParseBlob(got.Parts)
	if !is || !are || table.Name != "table.csv" || parts.Name != "parts" || !parts.Directory || got.Rows != 5 {
		t.Fatalf("%+v", got)
	}
	if out := o.must("data", "get", got.Table, "-"); out != "1\n2\n3\n4\n5\n" {
		t.Errorf("the table is %q", out)
	}
	o.must("data", "get", "-r", got.Parts, "here")
	if text, err := os.ReadFile(filepath.Join(o.dir, "here", "xac")); err != nil || string(text) != "5\n" {
		t.Errorf("the last part is %q, %v", text, err)
	}
	if n := o.cached("5"); n != 3 {
		t.Errorf("%d calls of 3 were answered by the cache", n)
	}
	if r := o.berth("data", "get", "blob:sha256:"+strings.Repeat("0a", 32)+"/table.csv", "-"); r.code != 125 || !strings.Contains(r.stderr, "there is no blob:sha256:") {
		t.Errorf("what isn't there: exit %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}

// What is on the filesystem of one site is brought to the other, which has
// none, or has another.
func TestWorkflowWhoseFilesGoFromOneFilesystemToAnother(t *testing.T) {
	t.Parallel()
	o := handing(t, "mount_dfs: pvc:shared\n", "mount_dfs: {url: pvc:shared, path: /elsewhere}\n", "data")
	o.write("tables.star", tableWorkflow)
	o.must("workflow", "run", "tables.star", "rows=7")
	got := o.tables()
	if !strings.HasPrefix(got.Table, "/data/.berth/work/") || !strings.HasPrefix(got.Parts, "/elsewhere/.berth/work/") || got.Rows != 7 {
		t.Errorf("%+v", got)
	}
	if out := o.must("data", "ls", "-R", "/elsewhere/.berth/files", "--on", "site-b"); strings.Count(out, "/table.csv") != 1 {
		t.Errorf("%s", out)
	}
	if n := o.cached("7"); n != 3 {
		t.Errorf("%d calls of 3 were answered by the cache", n)
	}
	o.write("changed.csv", "another table\n")
	o.must("data", "put", "changed.csv", got.Table, "--on", "site-a")
	if n := o.cached("7"); n != 2 { // what is made anew is what it was
		t.Errorf("%d calls of 3 were answered by the cache after the table was changed", n)
	}

	o.build("text")
	o.write("book.txt", strings.Repeat("to be or\nnot to be\nthat is\n", 2))
	o.must("data", "put", "book.txt", "/data/book.txt", "--on", "site-a")
	out := o.must("workflow", "run", example(t, "wordfiles.star"), "file=/data/book.txt", "parts=3", "least=3", "here=site-a", "there=site-b")
	if out != `{"counts":[{"n":4,"word":"be"},{"n":4,"word":"to"}],"total":8}`+"\n" {
		t.Errorf("%s", out)
	}
}

// Without a way from one to the other the call that takes the file says so.
func TestWorkflowWhoseFilesHaveNoWay(t *testing.T) {
	t.Parallel()
	o := newOffice(t, false, "")
	o.script("tables", tableProgram, tableFunctions)
	o.write("tables.star", "tables = package(\"tables\")\n\ndef main():\n    return tables.split(table = tables.make(rows = 2))\n")
	r := o.berth("workflow", "run", "tables.star")
	if r.code != 1 || !strings.Contains(r.stderr, "callback_to") || !strings.Contains(r.stderr, "tables.star:4:") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}
