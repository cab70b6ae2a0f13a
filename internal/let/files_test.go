package let

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/registry"
)

// filesRegistry is a registry that takes one login, and counts what is put.
type filesRegistry struct {
	*agent.Files
	puts, gets atomic.Int32
	away       atomic.Int32 // requests that it does not answer well
}

func newFilesRegistry(t *testing.T) *filesRegistry {
	t.Helper()
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &filesRegistry{Files: &agent.Files{User: "task-task/pod", Token: "token"}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if user, password, _ := request.BasicAuth(); user != "task-task/pod" || password != "token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if f.away.Add(-1) >= 0 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		switch {
		case request.Method == http.MethodPatch:
			f.puts.Add(1)
		case request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/"):
			f.gets.Add(1)
		}
		r.ServeHTTP(w, request)
	}))
	t.Cleanup(func() { server.Close(); _ = r.Close() })
	f.URL = server.URL
	return f
}

// handing calls a function of a workflow.
func (f *filesRegistry) handing(t *testing.T, dfs *agent.DFS, fn berth.Function, text string, args map[string]string) *agent.Completion {
	t.Helper()
	order, inside := calling(t, fn, text)
	order.DFS, order.Files, order.Call.Arguments = dfs, f.Files, map[string]json.RawMessage{}
	for name, value := range args {
		order.Call.Arguments[name] = json.RawMessage(value)
	}
	_, c := report(t, order, inside)
	return c
}

var folderOut = []berth.Parameter{{Name: "out", Type: "Directory"}}

// value is a call's result, which is a text.
func value(t *testing.T, c *agent.Completion) string {
	t.Helper()
	var text string
	if c.Fault != nil || json.Unmarshal(c.Result, &text) != nil {
		t.Fatalf("%s, %+v", c.Result, c.Fault)
	}
	return text
}

func TestAFileOfOneCallIsTheNextOnes(t *testing.T) {
	t.Parallel()
	f := newFilesRegistry(t)
	made := value(t, f.handing(t, nil, berth.Function{Outputs: fileOut}, `echo made > "$BERTH_WORK/table.csv"; echo "out: '$BERTH_WORK/table.csv'"`, nil))
	if blob, is := berth.ParseBlob(made); !is || blob.Name != "table.csv" || blob.Directory {
		t.Fatalf("the result is %q", made)
	}
	got := value(t, f.handing(t, nil, berth.Function{Inputs: fileIn, Outputs: text}, `echo "out: '$(basename $A) $(cat $A)'"`, map[string]string{"a": `"` + made + `"`}))
	if got != "table.csv made" {
		t.Errorf("the next call found %q", got)
	}
}

func TestADirectoryIsHandedOnWithAllThatIsInIt(t *testing.T) {
	t.Parallel()
	f := newFilesRegistry(t)
	made := value(t, f.handing(t, nil, berth.Function{Outputs: folderOut}, `mkdir -p parts/deep; echo one > parts/1; echo two > parts/deep/2; ln -s 1 parts/link; echo "out: parts"`, nil))
	got := value(t, f.handing(t, nil, berth.Function{Inputs: folderIn, Outputs: text}, `cd "$A"; echo "out: '$(cat 1 deep/2 | tr "\n" " ")$(readlink link) $(basename $PWD)'"`, map[string]string{"a": `"` + made + `"`}))
	if got != "one two 1 parts" || !strings.HasSuffix(made, "/parts/") {
		t.Errorf("%q has %q", made, got)
	}
}

// What the registry has isn't sent again, and what is on a shared filesystem is
// not fetched again.
func TestAFileIsMovedOnce(t *testing.T) {
	t.Parallel()
	f := newFilesRegistry(t)
	var made string
	for range 2 {
		made = value(t, f.handing(t, nil, berth.Function{Outputs: fileOut}, `echo same > x; echo "out: x"`, nil))
	}
	if n := f.puts.Load(); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
	mount := shared(t)
	for range 2 {
		got := value(t, f.handing(t, &agent.DFS{Path: mount}, berth.Function{Inputs: fileIn, Outputs: text}, `echo "out: '$A $(cat $A)'"`, map[string]string{"a": `"` + made + `"`}))
		if blob, _ := berth.ParseBlob(made); got != filepath.Join(mount, ".berth/files", strings.TrimPrefix(blob.Digest, "sha256:"), "x")+" same" {
			t.Errorf("found %q", got)
		}
	}
	if n := f.gets.Load(); n != 1 {
		t.Errorf("it was fetched %d times", n)
	}
	entries, err := filepath.Glob(filepath.Join(mount, ".berth/files/*/.part*"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestARegistryThatIsAwayForAWhileIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := newFilesRegistry(t)
	f.away.Store(2)
	made := value(t, f.handing(t, nil, berth.Function{Outputs: fileOut}, `echo x > x; echo "out: x"`, nil))
	f.away.Store(2)
	if got := value(t, f.handing(t, nil, berth.Function{Inputs: fileIn, Outputs: text}, `echo "out: $(cat $A)"`, map[string]string{"a": `"` + made + `"`})); got != "x" {
		t.Errorf("found %q", got)
	}
}

func TestAResultThatCannotBeHandedOn(t *testing.T) {
	t.Parallel()
	f := newFilesRegistry(t)
	for name, tt := range map[string]struct {
		outputs []berth.Parameter
		text    string
		said    string
	}{
		"nothing there": {fileOut, `echo "out: nosuch"`, "there is no "},
		"a directory":   {fileOut, `mkdir d; echo "out: d"`, "is a directory"},
		"a file":        {folderOut, `echo > f; echo "out: f"`, "is not a directory"},
		"all of it":     {folderOut, `echo "out: /"`, "there are secrets in /"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := f.handing(t, nil, berth.Function{Outputs: tt.outputs}, tt.text, nil)
			if c.Fault == nil || c.Fault.Cause != berth.CauseResultMalformed || !strings.Contains(c.Fault.Summary, tt.said) || len(c.Result) != 0 {
				t.Errorf("%s, %+v", c.Result, c.Fault)
			}
		})
	}
}

func TestAnInputThatCannotBeHadStartsNothing(t *testing.T) {
	t.Parallel()
	f := newFilesRegistry(t)
	absent := berth.Blob{Digest: "sha256:" + strings.Repeat("0a", 32), Name: "x"}
	folder := absent
	folder.Directory = true
	made := value(t, f.handing(t, nil, berth.Function{Outputs: fileOut}, `echo x > x; echo "out: x"`, nil))
	refusing := newFilesRegistry(t)
	refusing.Files = &agent.Files{URL: refusing.URL, User: refusing.User, Token: "another"}
	untold := newFilesRegistry(t)
	untold.Files = nil
	for name, tt := range map[string]struct {
		from   *filesRegistry
		inputs []berth.Parameter
		value  string
		cause  berth.Cause
		said   string
	}{
		"gone":             {f, fileIn, absent.String(), berth.CauseConfigNotFound, "the registry has no such file any more"},
		"a directory":      {f, fileIn, folder.String(), berth.CauseConfigNotFound, "that is a directory"},
		"a file":           {f, folderIn, made, berth.CauseConfigNotFound, "that is a file"},
		"no way there":     {untold, fileIn, made, berth.CauseConfigNotFound, "not told the way to"},
		"a token too many": {refusing, fileIn, made, berth.CauseCallbackUnreachable, "401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := tt.from.handing(t, nil, berth.Function{Inputs: tt.inputs, Outputs: text}, `echo "out: started"`, map[string]string{"a": `"` + tt.value + `"`})
			if c.Fault == nil || c.Fault.Cause != tt.cause || !strings.Contains(c.Fault.Summary, tt.said) || !strings.Contains(c.Fault.Summary, "not started") || c.Fault.Remedy == "" {
				t.Errorf("%s, %+v", c.Result, c.Fault)
			}
		})
	}
}

// Who may not write to the shared filesystem has it for itself.
func TestAFileThatCannotBeSharedIsFetchedAllTheSame(t *testing.T) {
	t.Parallel()
	f := newFilesRegistry(t)
	made := value(t, f.handing(t, nil, berth.Function{Outputs: fileOut}, `echo x > x; echo "out: x"`, nil))
	mount := shared(t)
	write(t, filepath.Join(mount, ".berth"), "in the way", 0o644)
	got := value(t, f.handing(t, &agent.DFS{Path: mount}, berth.Function{Inputs: fileIn, Outputs: text}, `echo "out: '$A $(cat $A)'"`, map[string]string{"a": `"` + made + `"`}))
	if strings.HasPrefix(got, mount) || !strings.HasSuffix(got, "/x x") {
		t.Errorf("found %q", got)
	}
	if _, err := os.Stat(strings.TrimSuffix(got, " x")); !os.IsNotExist(err) {
		t.Errorf("it is left behind: %v", err)
	}
}
