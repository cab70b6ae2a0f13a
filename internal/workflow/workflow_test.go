package workflow

import (
	"encoding/json"
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/berth-run/berth"
)

// the packages that programs of tests find.
func packages(name, version string) (berth.Package, error) {
	text := berth.Package{
		Name: "text", Version: "1.0.0", Digest: "sha256:abc",
		Functions: []berth.Function{
			{Name: "count", Inputs: []berth.Parameter{
				{Name: "part", Type: "File"}, {Name: "words", Type: "string[]", Default: json.RawMessage("[]")},
			}, Outputs: []berth.Parameter{{Name: "counts", Type: "integer"}}},
			{Name: "merge", Inputs: []berth.Parameter{{Name: "counts", Type: "integer[]"}, {Name: "name", Type: "string", Optional: true}}},
			{Name: "place", Inputs: []berth.Parameter{{Name: "at", Type: "Point"}}},
			{Name: "login", Inputs: []berth.Parameter{{Name: "password", Type: "string", Secret: true}}},
		},
		Types: map[string]berth.Class{"Point": {Properties: []berth.Parameter{{Name: "x", Type: "real"}, {Name: "y", Type: "real"}}}},
	}
	switch {
	case name == "away":
		return berth.Package{}, berth.Errorf(berth.CodeUnavailable, "the registry is away")
	case name != "text":
		return berth.Package{}, berth.Errorf(berth.CodeNotFound, "there is no package %s", name)
	case version != "" && version != text.Version:
		return berth.Package{}, berth.Errorf(berth.CodeNotFound, "package text has no version %s", version)
	}
	return text, nil
}

// files makes a filesystem of texts.
func files(texts map[string]string) fs.FS {
	all := fstest.MapFS{}
	for name, text := range texts {
		all[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return all
}

// problems loads and checks a program.
func problems(t testing.TB, texts map[string]string) []Problem {
	t.Helper()
	program, err := Load(files(texts), "main.star")
	var found Problems
	if errors.As(err, &found) {
		return found
	}
	if err != nil {
		t.Fatal(err)
	}
	report, err := program.Check(packages)
	if err != nil {
		t.Fatal(err)
	}
	return report.Problems
}

var expected = regexp.MustCompile(`# want "([^"]*)"`)

// expectations are what comments of a program say: the file, the line and a part of the message.
func expectations(texts map[string]string) []Problem {
	var want []Problem
	for name, text := range texts {
		for i, line := range strings.Split(text, "\n") {
			for _, m := range expected.FindAllStringSubmatch(line, -1) {
				want = append(want, Problem{File: name, Line: i + 1, Message: m[1]})
			}
		}
	}
	slices.SortStableFunc(want, compareProblems)
	return want
}

func compare(t *testing.T, texts map[string]string) {
	t.Helper()
	found, want := problems(t, texts), expectations(texts)
	for i := range max(len(found), len(want)) {
		switch {
		case i >= len(want):
			t.Errorf("not expected: %s", found[i])
		case i >= len(found):
			t.Errorf("not found: %s", want[i])
		case found[i].File != want[i].File || found[i].Line != want[i].Line || !strings.Contains(found[i].Message, want[i].Message):
			t.Errorf("found %s, want %s", found[i], want[i])
		}
	}
}

func TestCheck(t *testing.T) {
	tests := map[string]string{
		"a program in which all is well": `
text = package("text", "1.0.0")

def main(path, n = 8):
    parts = [path] * n
    counts = text.count.map(part = parts, on = "site-a", max_parallel = 4)
    total = text.merge.submit(counts = counts, _name = "sum", cpu = 2, memory = "1Gi", timeout = "10m", retries = 3, cache = True)
    out = run("docker.io/library/busybox:1.36", ["echo", "hello"], env = {"A": "b"}, name = "said")
    late = run.submit(image = "busybox", args = ["date"])
    gather([total, late])
    if total.result() == out:
        sleep("1s")
    return try_call(text.merge, counts = [1, -2])
`,
		"packages": `
a = package("txt", "1.0.0")  # want "there is no package txt"
b = package("text", "2.0.0") # want "has no version 2.0.0"
c = package("te" + "xt")     # want "its name as a written text"
d = package("text", version = 1) # want "its version as a written text"
e = package() # want "package takes a name and a version"
f = package("text", colour = "blue") # want "package takes a name and a version"
def main():
    a.anything()
`,
		"functions": `
text = package("text")
def main():
    text.cuont(part = "x") # want "did you mean count?"
    text.cuont.submit(part = "x") # want "did you mean count?"
    text.count("x") # want "given by name: text.count(part = File, [words = string[]])"
    text.count() # want "called without part"
    text.count(**{}) 
`,
		"arguments": `
text = package("text")
def main(path, list):
    text.count(prat = path) # want "no argument prat; did you mean part?"
    text.count(part = 3) # want "want the path of a File, have 3"
    text.count(part = path, words = "x") # want "want an array"
    text.count(part = path, words = ["x", 1]) # want "words[1]"
    text.place(at = {"x": 1, "y": 2.5})
    text.place(at = {"x": 1}) # want "is missing"
    text.place(at = {"x": 1, "y": path})
    text.merge(counts = (1, 2), name = None)
    text.merge(counts = [1, True]) # want "counts[1]"
    text.login(password = "hunter2") # want "takes a reference"
    text.login(password = "secret:db")
`,
		"map takes lists, and what is a list itself": `
text = package("text")
def main(paths):
    text.count.map(part = paths, words = ["a"])
    text.count.map(part = ["a", "b", 3]) # want "have 3"
    text.merge.map(counts = [[1], [2, "x"]]) # want "counts[1]"
    text.merge.map(counts = [1, 2])
    text.count(part = "a", max_parallel = 2) # want "no argument max_parallel"
`,
		"options": `
text = package("text")
def main(path):
    text.count(part = path, on = 3) # want "on is the name of an infrastructure"
    text.count(part = path, cpu = "lots") # want "cpu is CPUs"
    text.count(part = path, cpu = "500m", memory = 1) # want "memory is memory"
    text.count(part = path, timeout = "soon") # want "timeout is a duration"
    text.count(part = path, timeout = "10ms") # want "timeout is a duration"
    text.count(part = path, retries = -1) # want "retries is how many times"
    text.count(part = path, retries = 1.5) # want "retries is how many times"
    text.count(part = path, cache = "yes") # want "cache is True or False"
    text.count(part = path, name = 1) # want "name is a text"
    text.count(part = path, cache = None, on = path)
    text.count.map(part = [path], max_parallel = 0) # want "max_parallel is how many"
    text.merge(counts = [], name = 1) # want "want a string"
    text.merge(counts = [], _name = 1) # want "name is a text"
    text.count(part = path, _name = "x") # want "no argument _name; did you mean name?"
`,
		"plain tasks": `
def main(image):
    run() # want "called without an image"
    run(3) # want "the name of an image"
    run("docker.io/library/BusyBox") # want "lower case"
    run(image, "echo") # want "a list of texts"
    run(image, ["a"], "b") # want "takes an image and a list of arguments"
    run(image, imaeg = 1) # want "did you mean image?"
    run.submit(image, cpu = "x") # want "cpu is CPUs"
    run.map(image = ["a", "b"])
`,
		"names that follow others": `
text = package("text")
same = text
count = same.count
later = count.submit
def main(path):
    count(prt = path) # want "no argument prt"
    later(part = 1) # want "have 1"
    other = text if path else None
    other.anything() # it may be something else
    for text in [1]:
        text.what()
`,
		"futures": `
text = package("text")
def main(path):
    f = text.count.submit(part = path)
    if f == 1: # want "a future is compared, not its value; its value is f.result()"
        pass
    if 3 in f: # want "is compared"
        pass
    if f: # want "neither true nor false"
        pass
    x = f + 1 # want "no value to reckon with"
    y = "%d" % f # want "no value to reckon with"
    z = [i for i in f] # want "has no elements"
    for i in f: # want "has no elements"
        pass
    f[0] # want "has no elements"
    not f # want "neither true nor false"
    text.merge(counts = f) # want "only text.merge.submit takes one"
    text.merge.submit(counts = f)
    text.merge.map(counts = f)
    g = 1
    g = f
    return g == 1 or f.result() == 1
`,
		"what Starlark says": `
def main():
    retrun = 1
    return retrn # want "undefined: retrn; did you mean retrun?"
`,
		"a mistyped name of what workflows have": `
def main():
    rum("busybox") # want "undefined: rum; did you mean run?"
`,
		"syntax": `
def main(:  # want "got ':'"
    pass
`,
		"recursion": `
def main(n):
    return main(n - 1) # want "main calls itself"
`,
		"main is no function": `
main = 3 # want "main has to be a function"
`,
		"main with more than names": `
def main(*args, **more): # want "by name" # want "by name"
    pass
`,
		"globals are assigned once": `
x = 1
x = 2 # want "cannot reassign global x"
def main():
    pass
`,
		"nothing that differs from run to run": `
def main():
    time.now()   # want "undefined: time"
    random.random() # want "undefined: random"
    open("x") # want "undefined: open"
`,
	}
	for name, program := range tests {
		t.Run(name, func(t *testing.T) { compare(t, map[string]string{"main.star": program}) })
	}
}

func TestMainIsMissing(t *testing.T) {
	found := problems(t, map[string]string{"main.star": "x = 1\n"})
	if len(found) != 1 || found[0].Line != 0 || !strings.Contains(found[0].String(), "main.star: there is no function main") {
		t.Errorf("%v", found)
	}
}

func TestLoadedFiles(t *testing.T) {
	tests := map[string]map[string]string{
		"a package and a function of another file": {
			"main.star": `
load("lib/text.star", "text", c = "count")
def main(path):
    text.merge(counts = 1) # want "want an array"
    c(part = 1) # want "have 1"
`,
			"lib/text.star":  "load(\"names.star\", \"NAME\")\ntext = package(\"text\")\ncount = text.count\n",
			"lib/names.star": "NAME = 1\n",
		},
		"a name that isn't there": {
			"main.star":  "load(\"other.star\", \"helper\") # want \"did you mean helpers?\"\ndef main():\n    pass\n",
			"other.star": "def helpers():\n    pass\n",
		},
		"a file that isn't there":    {"main.star": "load(\"other.star\", \"x\") # want \"there is no file other.star\"\ndef main():\n    pass\n"},
		"a file above the program":   {"main.star": "load(\"../other.star\", \"x\") # want \"is not below the directory\"\ndef main():\n    pass\n"},
		"a file of the whole system": {"main.star": "load(\"/etc/passwd\", \"x\") # want \"beside this one or below\"\ndef main():\n    pass\n"},
		"a circle": {
			"main.star": "load(\"a.star\", \"x\")\ndef main():\n    pass\n",
			"a.star":    "load(\"b.star\", \"x\")\n",
			"b.star":    "load(\"a.star\", \"x\") # want \"in a circle: a.star → b.star → a.star\"\n",
		},
		"a problem of a file that is loaded twice is told once": {
			"main.star": "load(\"a.star\", \"x\")\nload(\"b.star\", \"y\")\ndef main():\n    pass\n",
			"a.star":    "load(\"b.star\", \"y\")\nx = 1\n",
			"b.star":    "y = z # want \"undefined: z\"\n",
		},
	}
	for name, texts := range tests {
		t.Run(name, func(t *testing.T) { compare(t, texts) })
	}
}

// Who knows Python is told what to write in its place.
func TestPythonThatStarlarkDoesNotHave(t *testing.T) {
	tests := map[string]string{
		"import random\n":                          "main.star:1:1: Starlark has no import: package(",
		"from x import y\n":                        "main.star:1:1: Starlark has no from: package(",
		"def main():\n    try:\n        pass\n":    "main.star:2:5: Starlark has no try: try_call(",
		"def main():\n    raise Oh()\n":            "main.star:2:5: Starlark has no raise: fail(",
		"def main():\n    assert 1 == 1\n":         "main.star:2:13: Starlark has no assert: if not",
		"def main():\n    return f\"{x}\"\n":       "Starlark has no f-strings: use",
		"def main(x: int):\n    pass\n":            "main.star:1:12: Starlark has no types",
		"def main() -> int:\n    pass\n":           "Starlark has no types",
		"def main():\n    return 2 ** 3\n":         "main.star:2:16: Starlark has no **: use math.pow",
		"@cached\ndef main():\n    pass\n":         "main.star:1:1: Starlark has no decorators",
		"def main(n):\n    return n is None\n":     "main.star:2:16: Starlark has no is: compare with ==",
		"async def main():\n    pass\n":            "main.star:1:1: Starlark has no async: .submit(",
		"def main():\n    return (1, 2\n":          "main.star:3:",
		"def main():\n    x = {1: 2, 3}\n":         "got '}', want",
		"def main():\n    return \"a\" \"b\"\n":    "got string literal, want newline",
		"def main():\n    for x in [1] print(x)\n": "got identifier, want ':'",
	}
	for text, want := range tests {
		found := problems(t, map[string]string{"main.star": text})
		if len(found) == 0 || !strings.Contains(found[0].String(), want) {
			t.Errorf("%q: %v, want %s", text, found, want)
		}
	}
}

// Who shows problems asks the program for the lines that they are in.
func TestAMainFileThatIsTooLargeHasNoLines(t *testing.T) {
	program, err := Load(files(map[string]string{"main.star": strings.Repeat("x\n", MaxFile)}), "main.star")
	if err == nil || program.Line("main.star", 1) != "" {
		t.Errorf("%v, %q", err, program.Line("main.star", 1))
	}
}

func TestProgramsThatAreTooLarge(t *testing.T) {
	large := "#" + strings.Repeat("x", MaxFile)
	many := map[string]string{"main.star": "def main():\n    pass\n"}
	for i := range MaxFiles + 1 {
		name := "f" + strings.Repeat("i", i) + ".star"
		many[name] = ""
		many["main.star"] += "load(\"" + name + "\", \"x\")\n"
	}
	tests := map[string]struct {
		texts map[string]string
		want  string
	}{
		"the main file":   {map[string]string{"main.star": large}, "main.star: the file is larger than 1 MiB"},
		"another one":     {map[string]string{"main.star": "load(\"x.star\", \"y\")", "x.star": large}, "main.star:1:6: x.star: the file is larger"},
		"too many files":  {many, "more than 256 files"},
		"text that isn't": {map[string]string{"main.star": "x = 1\ny = \"\xff\"\n"}, "main.star:2:1: there are bytes here that are not UTF-8"},
		"brackets":        {map[string]string{"main.star": "x = " + strings.Repeat("(", 200000)}, "main.star:1:"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			found := problems(t, tt.texts)
			if len(found) == 0 || !strings.Contains(found[0].String(), tt.want) {
				t.Errorf("%.300v", found)
			}
		})
	}
}

func TestReport(t *testing.T) {
	program, err := Load(files(map[string]string{"main.star": `
text = package("text")
def main(path, n = 4 * 2, *, label = "a  b"):
    text.merge(counts = [text.count(part = path), text.count(part = path)])
`}), "main.star")
	if err != nil {
		t.Fatal(err)
	}
	report, err := program.Check(packages)
	got, _ := json.Marshal(report)
	want := `{"file":"main.star","parameters":[{"name":"path"},{"name":"n","default":"4 * 2"},{"name":"label","default":"\"a  b\""}],` +
		`"packages":[{"name":"text","version":"1.0.0","digest":"sha256:abc","functions":["count","merge"]}],"problems":[]}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
}

// A registry that is away is no fault of the program.
func TestAPackageThatCannotBeAskedFor(t *testing.T) {
	program, err := Load(files(map[string]string{"main.star": "x = package(\"away\")\ndef main():\n    x.y()\n"}), "main.star")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := program.Check(packages); berth.CodeOf(err) != berth.CodeUnavailable {
		t.Errorf("%v", err)
	}
}

// Whatever a file has in it: problems with places in it, or a report.
func FuzzCheck(f *testing.F) {
	f.Add("text = package(\"text\")\ndef main(a, b = 1):\n    return text.count.map(part = [a, b])\n")
	f.Add("\r\rdef main(a = 1 +\r2):\r\n run(a == run.submit())\r+")
	f.Add("load(\"main.star\", \"x\")")
	f.Add("def main():\n    x = run.submit(\"a\", [\"b\"])\n    return x == 1 or -x or x[1:2]\n")
	f.Add("main = lambda a, *b, **c: run(*b, **c)\n(x, [y, z]) = package(name = \"text\")\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range problems(t, map[string]string{"main.star": text}) {
			if p.File != "main.star" || p.Message == "" || p.Line < 0 || p.Line > 2+strings.Count(lineEnds.Replace(text), "\n") {
				t.Errorf("%+v", p)
			}
		}
	})
}
