package let

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// shared is a mount of its own, with a file and a folder in it.
func shared(t *testing.T) string {
	t.Helper()
	mount, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(mount, "in.txt"), "shared", 0o644)
	if err := os.Mkdir(filepath.Join(mount, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	return mount
}

// onShared calls a function on an infrastructure with a shared filesystem.
func onShared(t *testing.T, dfs *agent.DFS, fn berth.Function, text string, args map[string]string) *agent.Completion {
	t.Helper()
	order, inside := calling(t, fn, text)
	order.DFS, order.Call.Arguments = dfs, map[string]json.RawMessage{}
	for name, value := range args {
		order.Call.Arguments[name] = json.RawMessage(value)
	}
	_, c := report(t, order, inside)
	return c
}

var (
	fileIn   = []berth.Parameter{{Name: "a", Type: "File"}}
	folderIn = []berth.Parameter{{Name: "a", Type: "Directory"}}
	text     = []berth.Parameter{{Name: "out", Type: "string"}}
	fileOut  = []berth.Parameter{{Name: "out", Type: "File"}}
)

// A relative path is one below the mount; the program gets the whole one.
func TestPathsAreTakenBelowTheMount(t *testing.T) {
	t.Parallel()
	mount := shared(t)
	for name, tt := range map[string]struct {
		inputs      []berth.Parameter
		value, want string
	}{
		"relative":       {fileIn, `"in.txt"`, mount + "/in.txt"},
		"absolute":       {fileIn, `"` + mount + `/in.txt"`, mount + "/in.txt"},
		"a directory":    {folderIn, `"folder/"`, mount + "/folder"},
		"of the image":   {fileIn, `"/etc/passwd"`, "/etc/passwd"},
		"back and forth": {fileIn, `"folder/../in.txt"`, mount + "/in.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := onShared(t, &agent.DFS{Path: mount}, berth.Function{Inputs: tt.inputs, Outputs: text}, `echo "out: '$A'"`, map[string]string{"a": tt.value})
			if c.Fault != nil || string(c.Result) != `"`+tt.want+`"` {
				t.Errorf("%s, %+v", c.Result, c.Fault)
			}
		})
	}
}

// What goes in has to be there: the program is not started otherwise.
func TestAnInputThatIsNotThereStartsNothing(t *testing.T) {
	t.Parallel()
	mount := shared(t)
	for name, tt := range map[string]struct {
		inputs []berth.Parameter
		value  string
		words  []string
	}{
		"nothing there":         {fileIn, `"nosuch"`, []string{"a (File)", "there is no " + mount + "/nosuch"}},
		"a directory for file":  {fileIn, `"folder"`, []string{"a (File)", mount + "/folder is a directory"}},
		"a file for directory":  {folderIn, `"in.txt"`, []string{"a (Directory)", mount + "/in.txt is not a directory"}},
		"leads out":             {fileIn, `"../x"`, []string{"not below " + mount}},
		"in an array, the 2nd":  {[]berth.Parameter{{Name: "a", Type: "File[]"}}, `["in.txt","nosuch"]`, []string{"a[1] (File)", "nosuch"}},
		"absolute, nothing":     {fileIn, `"/nosuch/x"`, []string{"there is no /nosuch/x"}},
		"a device, not a file":  {fileIn, `"/dev/null"`, []string{"not a regular file"}},
		"a file in its own way": {fileIn, `"in.txt/x"`, []string{"can't be looked at"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ran := filepath.Join(t.TempDir(), "ran")
			c := onShared(t, &agent.DFS{Path: mount}, berth.Function{Inputs: tt.inputs, Outputs: text}, "touch "+ran+"; echo 'out: x'", map[string]string{"a": tt.value})
			if c.Fault == nil || c.Fault.Cause != berth.CauseConfigNotFound || c.ExitCode != exitAgent {
				t.Fatalf("%+v, exit %d", c.Fault, c.ExitCode)
			}
			for _, word := range append(tt.words, "was not started") {
				if !strings.Contains(c.Fault.Summary, word) {
					t.Errorf("%q is not in %q", word, c.Fault.Summary)
				}
			}
			if _, err := os.Stat(ran); err == nil {
				t.Error("the program ran")
			}
		})
	}
}

// A result that nobody else would find is none.
func TestAResultHasToBeOnTheSharedFilesystem(t *testing.T) {
	t.Parallel()
	mount := shared(t)
	if err := os.Symlink("/etc/passwd", filepath.Join(mount, "away")); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ value, result, word string }{
		"relative":    {"in.txt", mount + "/in.txt", ""},
		"absolute":    {mount + "/in.txt", mount + "/in.txt", ""},
		"not there":   {"nosuch", "", "there is no " + mount + "/nosuch"},
		"outside":     {"/etc/passwd", "", "not below " + mount},
		"leads out":   {"../../etc/passwd", "", "not below " + mount},
		"a symlink":   {"away", "", "a symlink to /etc/passwd"},
		"a directory": {"folder", "", "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, outputs := range [][]berth.Parameter{fileOut, {fileOut[0], {Name: "n", Type: "integer", Optional: true}}} {
				c := onShared(t, &agent.DFS{Path: mount}, berth.Function{Outputs: outputs}, "echo 'out: "+tt.value+"'", nil)
				want := `"` + tt.result + `"`
				if len(outputs) > 1 {
					want = `{"out":` + want + `}`
				}
				switch {
				case tt.word == "" && (c.Fault != nil || string(c.Result) != want):
					t.Errorf("%s, %+v", c.Result, c.Fault)
				case tt.word != "" && (c.Fault == nil || c.Fault.Cause != berth.CauseResultMalformed || !strings.Contains(c.Fault.Summary, "output out (File)") || !strings.Contains(c.Fault.Summary, tt.word)):
					t.Errorf("%+v", c.Fault)
				}
			}
		})
	}
}

// Without a shared filesystem paths are texts, as they always were.
func TestPathsAreLeftAloneWithoutASharedFilesystem(t *testing.T) {
	t.Parallel()
	c := onShared(t, nil, berth.Function{Inputs: fileIn, Outputs: fileOut}, `[ -z "$BERTH_WORK" ] && echo "out: $A"`, map[string]string{"a": `"nosuch/x"`})
	if c.Fault != nil || string(c.Result) != `"nosuch/x"` {
		t.Errorf("%s, %+v", c.Result, c.Fault)
	}
}

// The working folder is there for the program, and goes with the task as the
// infrastructure says; never with a result in it.
func TestWorkingFolderIsKeptAsThePolicySays(t *testing.T) {
	t.Parallel()
	const fails, succeeds, gives = "echo x > $BERTH_WORK/x; exit 3", "echo x > $BERTH_WORK/x; echo out: in.txt", "echo x > $BERTH_WORK/x; echo out: $BERTH_WORK/x"
	for _, tt := range []struct {
		keep    berth.KeepWork
		program string
		kept    bool
	}{
		{berth.KeepFailed, fails, true}, {berth.KeepFailed, succeeds, false}, {berth.KeepFailed, gives, true},
		{berth.KeepAlways, fails, true}, {berth.KeepAlways, succeeds, true},
		{berth.KeepNever, fails, false}, {berth.KeepNever, succeeds, false}, {berth.KeepNever, gives, true},
		{"", succeeds, false},
	} {
		mount := shared(t)
		onShared(t, &agent.DFS{Path: mount, KeepWork: tt.keep}, berth.Function{Outputs: fileOut}, tt.program, nil)
		if _, err := os.Stat(filepath.Join(mount, ".berth/work/task/x")); (err == nil) != tt.kept {
			t.Errorf("keep_work %q, %s: %v", tt.keep, tt.program, err)
		}
		if info, err := os.Stat(filepath.Join(mount, ".berth/work")); err != nil || info.Mode().Perm() != 0o777 || info.Mode()&os.ModeSticky == 0 {
			t.Errorf("tasks of other users can't make theirs: %v, %v", info, err)
		}
	}
	mount := shared(t)
	order := &agent.Order{DFS: &agent.DFS{Path: mount, KeepWork: berth.KeepAlways}, Steps: []berth.Step{{Name: "one", Run: "echo x > $BERTH_WORK/x"}, {Name: "two", Run: "cat $BERTH_WORK/x"}}}
	if _, c := report(t, order); c.ExitCode != 0 {
		t.Errorf("steps: %+v", c)
	}
	if _, err := os.Stat(filepath.Join(mount, ".berth/work/task/x")); err != nil {
		t.Errorf("of steps: %v", err)
	}
	order.DFS.ReadOnly = true
	order.Steps = []berth.Step{{Name: "none", Run: `[ -z "$BERTH_WORK" ]`}}
	if _, c := report(t, order); c.ExitCode != 0 {
		t.Errorf("where it is read-only: %+v", c)
	}
}
