package berth

import "testing"

// Paths are given as tasks see them or relative to the mount, and never lead out of it.
func TestDataPathStaysBelowTheMount(t *testing.T) {
	dfs := &DFS{Path: "/data"}
	for given, want := range map[string]string{
		"": ".", ".": ".", "/data": ".", "/data/": ".", "x": "x", "./x//y/": "x/y", "/data/x": "x", "/data/../data/x": "x", "a/../b": "b", "..x": "..x", "/data/ x\n": " x\n",
	} {
		if got, err := dfs.DataPath(given); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", given, got, err, want)
		}
	}
	for _, given := range []string{"/", "/etc/passwd", "..", "../x", "x/../../y", "/data/../etc", "/database", "/data/..", "x\x00y"} {
		if got, err := dfs.DataPath(given); CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %q, %v; want a refusal", given, got, err)
		}
	}
}
