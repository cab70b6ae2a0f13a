package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

func TestMountDFS(t *testing.T) {
	with := func(change func(*berth.DFS)) *berth.DFS {
		dfs := &berth.DFS{Path: "/data", KeepWork: berth.KeepFailed, Image: berth.DefaultDFSImage}
		change(dfs)
		return dfs
	}
	for text, want := range map[string]*berth.DFS{
		"redis://redis.example:6379/1":               with(func(d *berth.DFS) { d.URL = "redis://redis.example:6379/1" }),
		"redis://me:${secret:redis}@redis.example/1": with(func(d *berth.DFS) { d.URL = "redis://me:word@redis.example/1" }),
		"pvc:shared": with(func(d *berth.DFS) { d.Claim = "shared" }),
		"{url: pvc:shared, path: /shared, read_only: true}":   with(func(d *berth.DFS) { d.Claim, d.Path, d.ReadOnly = "shared", "/shared", true }),
		"{url: 'rediss://r.example/1', image: 'site/jfs:2'}":  with(func(d *berth.DFS) { d.URL, d.Image = "rediss://r.example/1", "site/jfs:2" }),
		"{url: pvc:shared, keep_work: always, user: '1000'}":  with(func(d *berth.DFS) { d.Claim, d.KeepWork, d.User = "shared", berth.KeepAlways, "1000" }),
		"{url: pvc:shared, keep_work: never, user: '1:2000'}": with(func(d *berth.DFS) { d.Claim, d.KeepWork, d.User = "shared", berth.KeepNever, "1:2000" }),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "infra.yml")
		for name, content := range map[string]string{
			path:                              "infrastructures:\n  a:\n    kind: kube\n    credentials: {mechanism: in-cluster}\n    mount_dfs: " + text + "\n",
			filepath.Join(dir, "secrets.yml"): "redis: word\n",
		} {
			if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		file, err := Load(path)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, file.Infrastructures[0].DFS); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}
