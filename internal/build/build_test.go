package build

import (
	"archive/tar"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/pack"
	"github.com/berth-run/berth/internal/registry"
)

func testAgent(platform string) ([]byte, error) { return []byte("the agent for " + platform), nil }

// folder makes a package's folder; a name that ends in a slash is a folder, a
// content that begins with "-> " a link.
func folder(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range contents {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(content, "-> "); link {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func definition(dir string, files ...string) *pack.Definition {
	d := &pack.Definition{
		Path: "container.yml", Dir: dir, Base: "scratch",
		Package: berth.Package{
			Name: "words", Version: "1.0.0", Kind: "ecu", Description: "Counts words.", WorkDir: pack.WorkDir,
			Entrypoint: berth.Entrypoint{Kind: "task", Exec: "run.sh"},
			Functions:  []berth.Function{{Name: "count", Capture: berth.CaptureComplete, Inputs: []berth.Parameter{{Name: "text", Type: "string"}}, Outputs: []berth.Parameter{{Name: "n", Type: "integer"}}}},
		},
	}
	for i, name := range files {
		d.Files = append(d.Files, pack.File{Path: name, Line: i + 10})
	}
	return d
}

func build(t *testing.T, d *pack.Definition, o Options) *Built {
	t.Helper()
	if o.Agent == nil {
		o.Agent = testAgent
	}
	a, err := Build(t.Context(), d, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// contents reads an image's files: their type and mode, and what is in them.
func contents(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for entries := tar.NewReader(r); ; {
			h, err := entries.Next()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			data, _ := io.ReadAll(entries)
			if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(stamp) {
				t.Errorf("%s has owner %d:%d %q and time %s", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime)
			}
			found[h.Name] = h.FileInfo().Mode().String() + " " + h.Linkname + string(data)
		}
		r.Close()
	}
	return found
}

func TestTheImageHasFilesAgentAndDescription(t *testing.T) {
	dir := folder(t, map[string]string{"run.sh": "#!/bin/sh\n", "lib/a.txt": "a", "lib/deep/b.txt": "b", "lib/link": "-> deep/b.txt", "other": "no", ".berth/store": "no"})
	d := definition(dir, "run.sh", "lib")
	d.Environment = []berth.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: `${A}2\$A`}}
	image := build(t, d, Options{}).Image.(v1.Image)
	got := contents(t, image)
	description := got[".berth/package.json"]
	delete(got, ".berth/package.json")
	want := map[string]string{
		".berth/":               "dtrwxrwxrwx ",
		".berth/berthlet":       "-rwxr-xr-x the agent for linux/" + platformOf(t, image).Architecture,
		"opt/":                  "drwxr-xr-x ",
		"opt/wd/":               "drwxr-xr-x ",
		"opt/wd/run.sh":         "-rwxr-xr-x #!/bin/sh\n",
		"opt/wd/lib/":           "drwxr-xr-x ",
		"opt/wd/lib/a.txt":      "-rw-r--r-- a",
		"opt/wd/lib/deep/":      "drwxr-xr-x ",
		"opt/wd/lib/deep/b.txt": "-rw-r--r-- b",
		"opt/wd/lib/link":       "Lrwxrwxrwx deep/b.txt",
	}
	for name, what := range want {
		if got[name] != what {
			t.Errorf("%s is %q, want %q", name, got[name], what)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("there is more: %v", got)
	}
	if !strings.Contains(description, `"name":"words"`) || !strings.HasPrefix(description, "-rw-r--r-- ") {
		t.Errorf("the description is %q", description)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if !slices.Equal(c.Entrypoint, []string{"/.berth/berthlet"}) || c.Cmd != nil || c.WorkingDir != "/opt/wd" || !slices.Equal(c.Env, []string{"A=1", "B=12$A"}) {
		t.Errorf("the configuration is %+v", c)
	}
}

func platformOf(t *testing.T, image v1.Image) *v1.Platform {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.Platform()
}

func TestSameSourceGivesSameDigest(t *testing.T) {
	contents := map[string]string{"run.sh": "#!/bin/sh\n", "lib/a": "a", "lib/b": "b", "lib/c": "-> a"}
	one := build(t, definition(folder(t, contents), "run.sh", "lib"), Options{})
	two := build(t, definition(folder(t, contents), "lib", "run.sh"), Options{})
	if one.Digest != two.Digest {
		t.Errorf("the same source gives %s and %s", one.Digest, two.Digest)
	}
	contents["lib/b"] = "c"
	if other := build(t, definition(folder(t, contents), "run.sh", "lib"), Options{}); one.Digest == other.Digest {
		t.Error("another source gives the same digest")
	}
}

func TestFilesThatCannotBePacked(t *testing.T) {
	outside := folder(t, map[string]string{"secret": "s"})
	for name, c := range map[string]struct {
		contents map[string]string
		file     string
		want     string
	}{
		"missing":        {map[string]string{"a": ""}, "b", "container.yml:10: files: there is no b in "},
		"link outside":   {map[string]string{"a": "-> " + outside + "/secret"}, "a", "container.yml:10: files: a: a is a link to " + outside + "/secret, outside of the package"},
		"link above":     {map[string]string{"d/a": "-> ../../x"}, "d", "container.yml:10: files: d: d/a is a link to ../../x, outside of the package"},
		"through a link": {map[string]string{"d": "-> " + outside}, "d/secret", "container.yml:10: files: d/secret: path escapes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(t.Context(), definition(folder(t, c.contents), c.file), Options{Agent: testAgent})
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || berth.CodeOf(err) != berth.CodeInvalid {
				t.Errorf("the error is %v, want %s", err, c.want)
			}
		})
	}
}

func TestSeveralPlatformsGiveAnIndex(t *testing.T) {
	d := definition(folder(t, map[string]string{"run.sh": ""}), "run.sh")
	index, ok := build(t, d, Options{Platforms: []string{"linux/amd64", "linux/arm64"}}).Image.(v1.ImageIndex)
	if !ok {
		t.Fatal("it is no index")
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, m := range manifest.Manifests {
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, m.Platform.String(), contents(t, image)[".berth/berthlet"])
	}
	want := []string{"linux/amd64", "-rwxr-xr-x the agent for linux/amd64", "linux/arm64", "-rwxr-xr-x the agent for linux/arm64"}
	if !slices.Equal(have, want) {
		t.Errorf("the index has %q", have)
	}
	if manifest.Annotations[images.Annotation] == "" {
		t.Error("the index does not say which package it is")
	}
}

func TestWhatHasToBeRunNeedsDocker(t *testing.T) {
	d := definition(folder(t, map[string]string{"run.sh": ""}), "run.sh")
	d.Base = "docker.io/library/debian:12"
	d.Install = []pack.Line{{Text: "true", Line: 3}}
	o := Options{Agent: testAgent}
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
	_, err := Build(t.Context(), d, o)
	if berth.CodeOf(err) != berth.CodeUnavailable || !strings.Contains(err.Error(), "install (container.yml:3) to be run, which needs a Docker Engine") {
		t.Errorf("the error is %v", err)
	}
	o.Builder = Layers
	if _, err = Build(t.Context(), d, o); berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("the error is %v", err)
	}
}

func TestASecondBuildReadsNoLayerOfItsBase(t *testing.T) {
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var blobs atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		r.ServeHTTP(w, request)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	under := definition(folder(t, map[string]string{"run.sh": "base"}), "run.sh")
	under.Package.Name = "base"
	store := images.Remote(host, nil)
	if _, err := store.Push(t.Context(), build(t, under, Options{}).Image, "base", "1.0.0", nil); err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	d := definition(folder(t, map[string]string{"run.sh": "top"}), "run.sh")
	d.Base = host + "/base:1.0.0"
	keep := func() *Built {
		built := build(t, d, Options{Cache: cache})
		own, err := registry.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		if _, err := images.Local(images.HandlerTransport{Handler: own}).Push(t.Context(), built.Image, "words", "1.0.0", nil); err != nil {
			t.Fatal(err)
		}
		return built
	}
	one := keep()
	if got := contents(t, one.Image.(v1.Image))["opt/wd/run.sh"]; got != "-rwxr-xr-x top" {
		t.Errorf("run.sh is %q", got)
	}
	blobs.Store(0)
	two := keep()
	if n := blobs.Load(); n > 1 {
		t.Errorf("%d blobs were read again, more than the configuration", n)
	}
	if one.Digest != two.Digest {
		t.Errorf("the same package is %s and %s", one.Digest, two.Digest)
	}
}

func TestABaseFromATarFile(t *testing.T) {
	base := build(t, definition(folder(t, map[string]string{"run.sh": "base", "data": "d"}), "run.sh", "data"), Options{})
	file := filepath.Join(t.TempDir(), "base.tar")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tarball.Write(name.MustParseReference("example.com/base:1"), base.Image.(v1.Image), out), out.Close()); err != nil {
		t.Fatal(err)
	}
	d := definition(folder(t, map[string]string{"run.sh": "top"}), "run.sh")
	image := build(t, d, Options{Base: file}).Image.(v1.Image)
	if got := contents(t, image); got["opt/wd/run.sh"] != "-rwxr-xr-x top" || got["opt/wd/data"] != "-rw-r--r-- d" {
		t.Errorf("the image has %v", got)
	}
}

func TestTheAgentIsOneLayerEverywhere(t *testing.T) {
	platform := "linux/" + runtime.GOARCH
	agents := func() v1.ImageIndex {
		index, err := AgentImage([]string{platform}, testAgent)
		if err != nil {
			t.Fatal(err)
		}
		return index
	}
	one, _ := agents().Digest()
	two, _ := agents().Digest()
	if one != two {
		t.Errorf("the same agent is %s and %s", one, two)
	}
	index := agents()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	own, _ := image.Layers()
	agent, _ := own[0].Digest()
	d := definition(folder(t, map[string]string{"run.sh": ""}), "run.sh")
	if _, err := build(t, d, Options{}).Image.(v1.Image).LayerByDigest(agent); err != nil {
		t.Errorf("a package has another layer for it: %v", err)
	}
}

func TestVariablesMeanTheSameForBothBuilders(t *testing.T) {
	env := []string{"PATH=/bin", "A=1", "A=2"}
	for value, want := range map[string]struct{ expanded, quoted string }{
		"/x:$PATH":    {"/x:/bin", `"/x:${PATH}"`},
		"${A}$A":      {"22", `"${A}${A}"`},
		`\$A "q"`:     {`$A "q"`, `"\$A \"q\""`},
		"$5 $ ${A:-}": {"$5 $ ${A:-}", `"\$5 \$ \${A:-}"`},
		"$NONE.":      {".", `"${NONE}."`},
		`a\b`:         {`a\b`, `"a\\b"`},
	} {
		if got := expand(value, env); got != want.expanded {
			t.Errorf("%s is %s, want %s", value, got, want.expanded)
		}
		if got := quoted(value); got != want.quoted {
			t.Errorf("%s is written %s, want %s", value, got, want.quoted)
		}
	}
}
