//go:build e2e

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// The Python package makes a cluster, computes on it, scales it and ends it: by
// the berth program of this machine, and by a server.
func TestDaskFromPython(t *testing.T) {
	t.Parallel()
	image, _ := daskImage(t, "debian")
	script, err := filepath.Abs("../../python/tests/e2e_cluster.py")
	if err != nil {
		t.Fatal(err)
	}
	use := func(s *site, env ...string) {
		t.Helper()
		cmd := exec.Command(debianPython, script, "--image", image, "--pull", "never", "--worker-cpu", "100m", "--head-cpu", "100m", "--timeout", "3m")
		cmd.Dir = s.dir
		cmd.Env = append(s.command(nil).Env, append(s.env, env...)...)
		var stderr lockedBuffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, stderr.String())
		}
		var told struct {
			Array     struct{ Right bool }
			Dataframe struct{ Right bool }
		}
		if err := json.Unmarshal(out, &told); err != nil || !told.Array.Right || !told.Dataframe.Right {
			t.Errorf("%v: %s", err, out)
		}
	}
	s := newSite(t, "clusters")
	use(s, "BERTH_BINARY="+berthBinary)
	waitFor(t, "nothing is left", 30*time.Second, func() bool { return len(s.leftovers()) == 0 })

	o := officeFor(newSite(t, "clusters"))
	use(o.remote())
	waitFor(t, "nothing is left", 30*time.Second, func() bool { return len(o.leftovers()) == 0 })
}

// On a server the dashboards have a port and a login of their own; what changes a
// cluster doesn't pass.
func TestDaskDashboardOnAServer(t *testing.T) {
	t.Parallel()
	s := newSite(t, "clusters")
	host := hostIP(t)
	address := host + ":" + freePort(t, host)
	o := officeFor(s, "--dashboards", address)
	image, _ := daskImage(t, "pypi")
	c := o.createDask("shown", image, 1, "--workers", "1", "--memory", "600Mi", "--head-memory", "800Mi")
	if c.Dashboard == nil || *c.Dashboard != "https://"+address+"/"+c.ID+"/status" {
		t.Fatalf("its dashboard is told to be at %v", c.Dashboard)
	}
	base := "https://" + address + "/" + c.ID
	token := strings.TrimSpace(o.must("server", "token", "create", "ada", "--role", "admin"))
	browser := o.client()
	browser.Jar, _ = cookiejar.New(nil)
	get := func(path string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", "text/html")
		response, err := browser.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(text)
	}
	login := func(token string) int {
		t.Helper()
		response, err := browser.PostForm(base+"/login", url.Values{"token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	if code, text := get("/status"); code != http.StatusUnauthorized || !strings.Contains(text, `type="password"`) {
		t.Errorf("without a login: %d\n%s", code, text)
	}
	if code := login("wrong"); code != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d", code)
	}
	if code := login(token); code != http.StatusOK {
		t.Errorf("with a token: %d", code)
	}
	code, text := get("/status")
	socket := regexp.MustCompile(`"token":"([^"]+)"`).FindStringSubmatch(text)
	if code != http.StatusOK || !strings.Contains(text, "Bokeh") || socket == nil {
		t.Fatalf("the page: %d\n%.2000s", code, text)
	}
	for _, path := range []string{"/api/v1/get_workers", "/berth/state", "/proxy/8787/127.0.0.1/status"} {
		if code, text := get(path); code == http.StatusOK {
			t.Errorf("%s passes: %s", path, text)
		}
	}

	// Its websocket, by which the plots get their data.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/status/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		"Sec-WebSocket-Protocol": "bokeh, " + socket[1], "Origin": "https://" + address,
	} {
		request.Header.Set(name, value)
	}
	browser.Timeout = 0 // which would end it
	response, err := browser.Do(request)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the websocket: %v, %v", response, err)
	}
	defer response.Body.Close()
	said := ""
	for buffer := make([]byte, 4096); !strings.Contains(said, "ACK"); {
		n, err := response.Body.Read(buffer)
		said += string(buffer[:n])
		if err != nil {
			t.Fatalf("the websocket said %q: %v", said, err)
		}
	}
	o.must("server", "token", "revoke", "ada")
	waitFor(t, "the session ends with its token", time.Minute, func() bool { code, _ := get("/status"); return code == http.StatusUnauthorized })
	if r := o.berth("cluster", "delete", "shown"); r.code != 0 || len(o.leftovers()) > 0 {
		t.Errorf("%s, left: %v", r.stderr, o.leftovers())
	}
	if c := o.cluster(c.ID); c.State != berth.ClusterStopped {
		t.Errorf("%s", c.State)
	}
}
