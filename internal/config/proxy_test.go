package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/berth-run/berth"
)

func TestProxies(t *testing.T) {
	bypass := []berth.ProxyBypass{
		{Prefix: netip.MustParsePrefix("10.96.0.0/16")}, {Prefix: netip.MustParsePrefix("10.0.0.7/32")},
		{Prefix: netip.MustParsePrefix("10.0.0.7/32"), Port: 53}, {Prefix: netip.MustParsePrefix("10.1.0.0/16"), Port: 443},
	}
	for text, want := range map[string]*berth.Proxy{
		"proxy:1080":                            {Protocol: berth.ProxySOCKS5, Address: "proxy:1080"},
		"socks5h://10.0.0.5:1080/":              {Protocol: berth.ProxySOCKS5, Address: "10.0.0.5:1080"},
		"socks5://ada@proxy.site.example:1080":  {Protocol: berth.ProxySOCKS5, Address: "proxy.site.example:1080", User: "ada"},
		`"http://ada:${secret:proxy}@proxy:80"`: {Protocol: berth.ProxyHTTP, Address: "proxy:80", User: "ada", Password: "s3cret@#%?"},
	} {
		want.Bypass = bypass
		dir := t.TempDir()
		path := filepath.Join(dir, "infra.yml")
		infra := "infrastructures:\n  a:\n    kind: kube\n    credentials: {mechanism: config, path: ./k}\n    proxy_address: " + text +
			"\n    proxy_bypass: [10.96.0.0/16, 10.0.0.7, \"10.0.0.7:53\", \"10.1.0.0/16:443\"]\n"
		for name, data := range map[string]string{path: infra, filepath.Join(dir, "secrets.yml"): "proxy: s3cret%40%23%25%3F\n"} {
			if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		loaded, err := Load(path)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, loaded.Infrastructures[0].Proxy, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}
