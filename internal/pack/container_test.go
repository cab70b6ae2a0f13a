package pack

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

const whole = `name: geometry
version: 1.2.0-rc.1
kind: ecu
description: Measures shapes.
contributors: [Ada]
owners: [Ada]
base: docker.io/library/debian:12
dependencies:
  - python3
  - python3-yaml=6.0-3
environment:
  LANG: C.UTF-8
  LEVEL: 3
  PATH: /opt/tools:$PATH
files:
  - run.py
  - data/
  - ./requirements.txt
install:
  - apt-get update
  - pip3 install numpy
unpack:
  - |-
    tar -xf data/table.tar \
      -C data
initialize:
  - mkdir -p /tmp/work
entrypoint:
  kind: task
  exec: run.py
types:
  Point:
    name: Point
    properties:
      - {name: x, type: real}
      - {name: y, type: real, default: 0}
actions:
  'distance':
    description: Between two points.
    command:
      args: [distance, 2]
      capture: prefixed
    pattern: {prefix: distance, infix: [from, to]}
    input:
      - name: points
        type: Point[]
        description: two of them
        example: [{x: 1}, {x: 2, y: 2.5}]
      - {name: unit, type: string, default: m, optional: true}
      - {name: password, type: string, secret: true}
    output:
      - {name: distance, type: real}
  area:
    command:
    input:
    output:
      area: {type: real}
`

func TestTheWholeOfIt(t *testing.T) {
	got, err := Parse("geometry/container.yml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := &Definition{
		Package: berth.Package{
			Name: "geometry", Version: "1.2.0-rc.1", Kind: "ecu", Description: "Measures shapes.", WorkDir: "/opt/wd",
			Entrypoint: berth.Entrypoint{Kind: "task", Exec: "run.py"}, Initialize: []string{"mkdir -p /tmp/work"},
			Types: map[string]berth.Class{"Point": {Properties: []berth.Parameter{{Name: "x", Type: "real"}, {Name: "y", Type: "real", Default: json.RawMessage("0")}}}},
			Functions: []berth.Function{
				{Name: "area", Capture: berth.CaptureComplete, Inputs: []berth.Parameter{}, Outputs: []berth.Parameter{{Name: "area", Type: "real"}}},
				{
					Name: "distance", Description: "Between two points.", Args: []string{"distance", "2"}, Capture: berth.CapturePrefixed,
					Inputs: []berth.Parameter{
						{Name: "points", Type: "Point[]", Description: "two of them", Example: json.RawMessage(`[{"x":1},{"x":2,"y":2.5}]`)},
						{Name: "unit", Type: "string", Default: json.RawMessage(`"m"`), Optional: true},
						{Name: "password", Type: "string", Secret: true},
					},
					Outputs: []berth.Parameter{{Name: "distance", Type: "real"}},
				},
			},
		},
		Path: "geometry/container.yml", Dir: "geometry", Base: "docker.io/library/debian:12", Dependencies: []string{"python3", "python3-yaml=6.0-3"},
		Environment: []berth.EnvVar{{Name: "LANG", Value: "C.UTF-8"}, {Name: "LEVEL", Value: "3"}, {Name: "PATH", Value: "/opt/tools:$PATH"}},
		Files:       []File{{"run.py", 16}, {"data", 17}, {"requirements.txt", 18}},
		Install:     []Line{{"apt-get update", 20}, {"pip3 install numpy", 21}},
		Unpack:      []Line{{"tar -xf data/table.tar \\\n  -C data", 23}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// minimal is a package around the lines that a test is about.
func minimal(lines string) string {
	text := "name: p\nversion: 1.0.0\n"
	if !strings.Contains(lines, "entrypoint:") {
		text += "entrypoint: {kind: task, exec: /bin/true}\n"
	}
	if !strings.Contains(lines, "actions:") {
		text += "actions: {f: {}}\n"
	}
	return text + lines
}

func TestInstallRunsAfterTheFilesWhereItUsesThem(t *testing.T) {
	for name, tt := range map[string]struct {
		lines           string
		install, unpack int
	}{
		"nothing of the package": {"files: [run.py]\ninstall: [pip3 install pyyaml]\nunpack: [./x]\n", 1, 1},
		"a requirements file":    {"files: [run.py, requirements.txt]\ninstall: [apt-get update, pip3 install -r requirements.txt, pip3 install x]\n", 1, 2},
		"a script":               {"files: [install.sh]\ninstall: [./install.sh]\n", 0, 1},
		"a file in a folder":     {"files: [lib/]\ninstall: [\"sh 'lib/setup.sh'\"]\n", 0, 1},
		"the folder itself":      {"files: [setup.py]\ninstall: [pip3 install .]\n", 0, 1},
		"by its place":           {"files: [a]\ninstall: [cp /opt/wd/a /usr/bin]\n", 0, 1},
		"before what is after":   {"files: [a]\ninstall: [./a]\nunpack: [x, y]\n", 0, 3},
		"another file like it":   {"files: [a]\ninstall: [cp /etc/a.conf /b]\n", 1, 0},
		"an older Brane":         {"kind: compute\nfiles: [a]\ninstall: [x]\n", 0, 1},
		"a newer name of unpack": {"post_install: [x]\n", 0, 1},
	} {
		d, err := Parse("container.yml", []byte(minimal(tt.lines)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(d.Install) != tt.install || len(d.Unpack) != tt.unpack {
			t.Errorf("%s: before %v, after %v", name, d.Install, d.Unpack)
		}
		if d.NeedsRun() != (tt.install+tt.unpack > 0) {
			t.Errorf("%s: NeedsRun is wrong", name)
		}
	}
}

func TestWhatOlderPackagesHave(t *testing.T) {
	d, err := Parse("container.yml", []byte(`#!/usr/bin/env brane
name: older
version: 1.0.0
kind: remote
docker: true
files: [run.sh, init.sh]
entrypoint: {kind: service, exec: run.sh --fast, delay: 5}
types:
  Settings:
    name: Settings
    properties:
      - name: weights
        type: string
        default: {v: unicode, c: resnet.h5}
      - name: sizes
        type: integer[]
        default: {v: array, c: {type: "integer[]", entries: [{v: integer, c: 1}, {v: integer, c: 2}]}}
actions:
  'start':
    command: {args: [now], capture: marked}
    requirements: [cuda_gpu]
    input:
      - {type: string, name: username, secret: SITE_USERNAME}
      - {type: Settings, name: settings, default: {v: struct, c: {type: Settings, properties: {weights: {v: unicode, c: x}}}}}
    output:
`))
	if err != nil {
		t.Fatal(err)
	}
	p := d.Package
	if p.Kind != "ecu" || p.Entrypoint != (berth.Entrypoint{Kind: "task", Exec: "run.sh"}) || !cmp.Equal(p.Initialize, []string{"./init.sh"}) {
		t.Errorf("%+v", p)
	}
	if got := p.Types["Settings"].Properties; string(got[0].Default) != `"resnet.h5"` || string(got[1].Default) != "[1,2]" {
		t.Errorf("%s %s", got[0].Default, got[1].Default)
	}
	fn := p.Function("start")
	if !cmp.Equal(fn.Args, []string{"--fast", "now"}) || !fn.Inputs[0].Secret || string(fn.Inputs[0].Default) != `"secret:SITE_USERNAME"` || string(fn.Inputs[1].Default) != `{"weights":"x"}` {
		t.Errorf("%+v", fn)
	}
	warnings := strings.Join(d.Warnings, "\n")
	for _, want := range []string{
		"container.yml:5:9: docker: has no effect", "container.yml:7:20: entrypoint.kind: a service is run as a task",
		"container.yml:7:57: entrypoint.delay: has no effect", "container.yml:21:19: actions.start.requirements: has no effect here; resources",
	} {
		if !strings.Contains(warnings, want) {
			t.Errorf("%q is not in\n%s", want, warnings)
		}
	}
	args, secrets, err := p.Arguments("start", nil)
	if err != nil || len(secrets) != 1 || string(args["settings"]) != `{"weights":"x","sizes":[1,2]}` {
		t.Errorf("%s %v %v", args, secrets, err)
	}
}

func TestMistakesSayWhereAndWhat(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "container.yml:1:1: the file is empty"},
		{"a list", "- a\n", "container.yml:1:1: want a map, but this is a list"},
		{"no name", "version: 1.0.0\n", "container.yml:1:1: name is missing: write name: my_package"},
		{"capitals", "name: Text\nversion: 1.0.0\n", `container.yml:1:7: name: package name "Text": use at most 63 lower-case`},
		{"no version", "name: a\n", "container.yml:1:1: version is missing"},
		{"two numbers", "name: a\nversion: 1.0\n", `container.yml:2:10: version: version "1.0": write a semantic version`},
		{"a v", "name: a\nversion: v1.0.0\n", `container.yml:2:10: version: version "v1.0.0": write a semantic version`},
		{"a plus", "name: a\nversion: 1.0.0+b\n", `container.yml:2:10: version: version "1.0.0+b": tags of images can't hold a '+'`},
		{"a typo", minimal("dependenciess: [a]\n"), "container.yml:5:1: dependenciess: unknown field; did you mean dependencies?"},
		{"another format", minimal("steps: [a]\n"), "container.yml:5:1: steps: is no field of container.yml: write dependencies, files"},
		{"cwl", minimal("kind: cwl\n"), `container.yml:5:7: kind: "cwl" is not usable: Berth builds packages of code only`},
		{"a kind", minimal("kind: ec\n"), `container.yml:5:7: kind: "ec" is not usable: write kind: ecu`},
		{"a base", minimal("base: De bian\n"), `container.yml:5:7: base: image "De bian"`},
		{"a dependency", minimal("dependencies: [python3; rm -rf /]\n"), `container.yml:5:16: dependencies[0]: "python3; rm -rf /" is not usable`},
		{"a variable", minimal("environment: {A-B: c}\n"), "container.yml:5:15: environment.A-B: the name of a variable"},
		{"a variable without value", minimal("environment:\n  A:\n"), "container.yml:6:3: environment.A: there is no value"},
		{"an absolute file", minimal("files: [/etc/passwd]\n"), `container.yml:5:9: files[0]: "/etc/passwd" is not usable: files are relative`},
		{"a file outside", minimal("files: [a/../../b]\n"), `container.yml:5:9: files[0]: "a/../../b" is not usable: files are relative`},
		{"a file twice", minimal("files: [a, ./a]\n"), `container.yml:5:12: files[1]: "./a" is not usable: it is there already`},
		{"an empty command", minimal("install: ['']\n"), "container.yml:5:11: install[0]: the command is empty"},
		{"unpack twice", minimal("unpack: [a]\npostinstall: [b]\n"), "container.yml:6:1: postinstall: is the same as unpack; keep one"},
		{"no entrypoint", "name: a\nversion: 1.0.0\nactions: {f: {}}\n", "container.yml:1:1: entrypoint is missing"},
		{"no exec", minimal("entrypoint: {kind: task}\n"), "container.yml:4:1: entrypoint: exec is missing"},
		{"exec outside", minimal("entrypoint: {exec: ../x}\n"), `container.yml:4:20: entrypoint.exec: "../x" is not usable: it has to be inside`},
		{"a kind of entrypoint", minimal("entrypoint: {kind: job, exec: x}\n"), `container.yml:4:20: entrypoint.kind: "job" is not usable: use task or service`},
		{"no actions", minimal("actions:\n"), "container.yml:4:1: actions: there are none"},
		{"an action's name", minimal("actions: {a b: {}}\n"), `container.yml:4:11: actions.a b: function "a b": use at most`},
		{"an endpoint", minimal("actions: {f: {endpoint: {path: /}}}\n"), "container.yml:4:15: actions.f.endpoint: functions of web services"},
		{"inputs", minimal("actions: {f: {inputs: []}}\n"), "container.yml:4:15: actions.f.inputs: unknown field; did you mean input?"},
		{"capture", minimal("actions: {f: {command: {capture: all}}}\n"), `container.yml:4:34: actions.f.command.capture: "all" is not usable: use complete, marked or prefixed`},
		{"no type", minimal("actions: {f: {input: [{name: a}]}}\n"), "container.yml:4:23: actions.f.input[0]: type is missing"},
		{"no name of an input", minimal("actions: {f: {input: [{type: real}]}}\n"), "container.yml:4:23: actions.f.input[0]: name is missing"},
		{"an unknown type", minimal("actions: {f: {input: [{name: a, type: integr}]}}\n"), "container.yml:4:39: actions.f.input[0].type: type integr: there is no such type or class; did you mean integer?"},
		{"a data set", minimal("actions: {f: {input: [{name: a, type: IntermediateResult}]}}\n"), "container.yml:4:39: actions.f.input[0].type: type IntermediateResult: data sets of a Brane instance"},
		{"an input twice", minimal("actions:\n  f:\n    input:\n    - {name: a, type: real}\n    - {name: a, type: real}\n"), "container.yml:8:7: actions.f.input[1]: a is there already, in line 7"},
		{"the same variable", minimal("actions: {f: {input: [{name: a, type: real}, {name: A, type: real}]}}\n"), `container.yml:4:11: actions.f: the inputs "a" and "A" are the same variable A`},
		{"PATH", minimal("actions: {f: {input: [{name: path, type: string}]}}\n"), "container.yml:4:23: actions.f.input[0]: inputs become environment variables, and this would replace PATH"},
		{"a default", minimal("actions: {f: {input: [{name: a, type: integer, default: x}]}}\n"), `container.yml:4:23: actions.f.input[0]: default "a": want an integer, have "x"`},
		{"an example", minimal("actions: {f: {input: [{name: a, type: 'integer[]', example: [1, b]}]}}\n"), `container.yml:4:23: actions.f.input[0]: example "a[1]": want an integer, have "b"`},
		{"a secret number", minimal("actions: {f: {input: [{name: a, type: integer, secret: true}]}}\n"), "container.yml:4:23: actions.f.input[0]: a secret input has to be of type string"},
		{"a secret's literal", minimal("actions: {f: {input: [{name: a, type: string, secret: true, default: hunter2}]}}\n"), `container.yml:4:23: actions.f.input[0]: a default or example of a secret input is a reference`},
		{"a secret's key", minimal("actions: {f: {input: [{name: a, type: string, secret: 'a b'}]}}\n"), "container.yml:4:55: actions.f.input[0].secret: want true, or the KEY"},
		{"a secret output", minimal("actions: {f: {output: [{name: a, type: string, secret: true}]}}\n"), "container.yml:4:24: actions.f.output[0]: secret is for inputs"},
		{"a class in itself", minimal("types: {A: {properties: [{name: a, type: A}]}}\n"), "container.yml:5:1: types: class A contains itself: A -> A"},
		{"a property's type", minimal("types: {A: {properties: [{name: a, type: B}]}}\n"), "container.yml:5:42: types.A.properties[0].type: type B: there is no such type or class; did you mean A?"},
		{"nested properties", minimal("types: {A: {properties: [{name: a, type: A, properties: [{name: b}]}]}}\n"), "container.yml:5:45: types.A.properties[0].properties: properties inside of properties"},
		{"another name", minimal("types: {A: {name: B, properties: []}}\n"), `container.yml:5:19: types.A.name: "B" is not usable: the class is called A`},
	} {
		_, err := Parse("container.yml", []byte(tt.text))
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
		} else if berth.CodeOf(err) != berth.CodeInvalid || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s:\n got %s %s\nwant %s", tt.name, berth.CodeOf(err), err, tt.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "there is no container.yml in "+dir) {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(dir, "container.yml")
	if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{dir, path} {
		if d, err := Load(from); err != nil || d.Dir != dir || d.Path != path {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if _, err := Load(filepath.Join(dir, "nowhere")); berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(minimal("types: {A: {properties: [{name: a, type: A}]}}\n")))
	f.Add([]byte(minimal("actions: {f: {input: {a: real}, output: [{name: b, type: 'A[]', default: &x [*x]}]}}\n")))
	position := regexp.MustCompile(`^container\.yml:[1-9][0-9]*:[1-9][0-9]*: `)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse("container.yml", data)
		if err == nil {
			if err := d.Package.Validate(); err != nil {
				t.Errorf("accepted what is of no use: %v", err)
			}
			if _, err := json.Marshal(d.Package); err != nil {
				t.Error(err)
			}
			return
		}
		var e *berth.Error
		if !errors.As(err, &e) || e.Code != berth.CodeInvalid || !position.MatchString(err.Error()) {
			t.Errorf("%T %v", err, err)
		}
	})
}
