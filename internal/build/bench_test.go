package build

import (
	"context"
	"crypto/rand"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/images"
	"github.com/berth-run/berth/internal/pack"
	"github.com/berth-run/berth/internal/registry"
)

// BenchmarkWarmBuild builds a package of 5 MB upon a base of 50 MB in a
// registry, which was read before, and stores it.
func BenchmarkWarmBuild(b *testing.B) {
	ctx := context.Background()
	package_ := func(name, base string, size int) *pack.Definition {
		dir := b.TempDir()
		data := make([]byte, size)
		_, _ = rand.Read(data)
		if err := os.WriteFile(filepath.Join(dir, "run.sh"), data, 0o755); err != nil {
			b.Fatal(err)
		}
		return &pack.Definition{
			Path: "container.yml", Dir: dir, Base: base, Files: []pack.File{{Path: "run.sh", Line: 5}},
			Package: berth.Package{Name: name, Version: "1.0.0", Kind: "ecu", WorkDir: pack.WorkDir, Entrypoint: berth.Entrypoint{Kind: "task", Exec: "run.sh"}},
		}
	}
	agent := make([]byte, 7<<20)
	_, _ = rand.Read(agent[:3<<20])
	o := Options{Cache: b.TempDir(), Agent: func(string) ([]byte, error) { return agent, nil }}
	r, err := registry.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	server := httptest.NewServer(r)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	store := func(d *pack.Definition, s *images.Store) {
		built, err := Build(ctx, d, o)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Push(ctx, built.Image, d.Package.Name, "1.0.0", nil); err != nil {
			b.Fatal(err)
		}
	}
	store(package_("base", "scratch", 50<<20), images.Remote(host, nil))
	own, err := registry.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer own.Close()
	local := images.Local(images.HandlerTransport{Handler: own})
	top := package_("top", host+"/base:1.0.0", 5<<20)
	store(top, local)
	for b.Loop() {
		if err := os.WriteFile(filepath.Join(top.Dir, "run.sh"), []byte(rand.Text()+strings.Repeat(rand.Text(), 200<<10)), 0o755); err != nil {
			b.Fatal(err)
		}
		store(top, local)
	}
}
