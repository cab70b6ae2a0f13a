//go:build e2e

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// newShared is a site with shared files, which are in the folder.
func newShared(t *testing.T, more string, profiles ...string) (s *site, folder string) {
	t.Helper()
	s = newSite(t, profiles...)
	folder = s.share("shared")
	s.infra(s.agentLoaded() + "mount_dfs: pvc:shared\n" + more)
	return s, folder
}

// declined runs a command that Berth itself refuses, with words that match.
func (s *site) declined(want string, args ...string) {
	s.t.Helper()
	r := s.berth(args...)
	if r.code != berth.ExitNone || !regexp.MustCompile(want).MatchString(r.stderr) {
		s.t.Errorf("berth %s: exit %d, want %q\n%s%s", strings.Join(args, " "), r.code, want, r.stdout, r.stderr)
	}
}

// What is put is what tasks find, and what they write can be had: without a
// server, by one pod that ends by itself.
func TestDataReachesWhatTasksShare(t *testing.T) {
	t.Parallel()
	s, folder := newShared(t, "", "data")
	s.write("in.txt", "from outside\n")
	s.must("data", "put", "in.txt", "/data/a/in.txt")
	if out := s.must("run", busybox, "--", "sh", "-c", "cat /data/a/in.txt; echo back > /data/a/out.txt; ln -s out.txt /data/a/link; ln -s /etc /data/a/away"); out != "from outside\n" {
		t.Errorf("the task read %q", out)
	}
	if out := s.must("data", "get", "a/out.txt", "-"); out != "back\n" {
		t.Errorf("got %q", out)
	}
	if out := s.must("data", "ls", "/data/a"); out != "/data/a/away@\n/data/a/in.txt\n/data/a/link@\n/data/a/out.txt\n" {
		t.Errorf("ls: %q", out)
	}
	var entries []berth.DataEntry
	if err := json.Unmarshal([]byte(s.must("data", "ls", "-R", "-o", "json")), &entries); err != nil {
		t.Fatal(err)
	}
	if len(entries) != 5 || entries[0].Path != "/data/a" || entries[0].Type != berth.DataDirectory || entries[4].Size != 5 || entries[1].Target == nil || *entries[1].Target != "/etc" {
		t.Errorf("ls -R -o json: %+v", entries)
	}
	s.declined("/data/a/away/passwd: a symlink there leads out", "data", "get", "a/away/passwd", "-")
	s.declined("/data/a is a directory: -r", "data", "get", "a")
	s.declined("there is no /data/nosuch", "data", "get", "nosuch")
	s.declined(`/etc/passwd.: it is not below /data`, "data", "get", "/etc/passwd")
	s.declined("/data/a is a directory that is not empty: -r", "data", "rm", "a")

	// One pod served all of it.
	served := s.tasks()
	served = slices.DeleteFunc(served, func(task berth.Task) bool { return task.Name == nil || *task.Name != "data" })
	if len(served) != 1 || served[0].State != berth.StateRunning {
		t.Errorf("tasks that serve: %+v", served)
	}
	pod, err := admin.CoreV1().Pods(s.namespace).Get(t.Context(), *served[0].Pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(pod.Spec)
	if pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation == nil || strings.Contains(string(text), `"privileged":true`) {
		t.Errorf("its pod: %s", text)
	}
	s.must("data", "rm", "-r", "/data/a")
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	// Somebody ends it: the next one finds another.
	s.must("task", "cancel", served[0].ID)
	waitFor(t, "its end", 30*time.Second, func() bool { return s.task(served[0].ID).State.Terminal() })
	s.must("data", "put", "in.txt", "again.txt")
	if data, err := os.ReadFile(filepath.Join(folder, "again.txt")); err != nil || string(data) != "from outside\n" {
		t.Errorf("%q, %v", data, err)
	}
}

// A pod that serves files is not there for ever.
func TestDataPodEndsByItself(t *testing.T) {
	t.Parallel()
	s, _ := newShared(t, "", "data")
	s.must("data", "ls")
	tasks := s.tasks()
	waitFor(t, "its end by itself", 120*time.Second, func() bool {
		pod, err := admin.CoreV1().Pods(s.namespace).Get(t.Context(), *tasks[0].Pod, metav1.GetOptions{})
		return err != nil || pod.Status.Phase == corev1.PodSucceeded
	})
	if task := s.task(tasks[0].ID); task.State != berth.StateSucceeded {
		t.Errorf("%s: %+v", task.State, task.Diagnosis)
	}
}

// Directories and large files go there and back the same, and it is told how fast.
func TestDataCopiesAreWhole(t *testing.T) {
	t.Parallel()
	s, folder := newShared(t, "", "data")
	large := make([]byte, 256<<20)
	_, _ = rand.Read(large)
	if err := os.WriteFile(filepath.Join(s.dir, "large"), large, 0o600); err != nil {
		t.Fatal(err)
	}
	s.must("data", "ls")
	put := s.berth("data", "put", "large", "large")
	get := s.berth("data", "get", "large", "back")
	if back, err := os.ReadFile(filepath.Join(s.dir, "back")); err != nil || !bytes.Equal(back, large) {
		t.Errorf("%d bytes came back, %v\n%s%s", len(back), err, put.stderr, get.stderr)
	}
	t.Logf("256 MiB: %s%s", put.stderr, get.stderr)
	if info, err := os.Stat(filepath.Join(folder, "large")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for i := range 500 {
		path := filepath.Join(s.dir, "many", fmt.Sprint(i%10), fmt.Sprint(i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(fmt.Sprint(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.must("data", "put", "-r", "many", "/data/")
	s.must("data", "get", "-r", "many", "many-back")
	if out, err := exec.Command("diff", "-r", filepath.Join(s.dir, "many"), filepath.Join(s.dir, "many-back")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	s.declined("/data/many exists already", "data", "put", "-r", "many", "/data/")
	s.declined("many exists here already", "data", "get", "-r", "many", ".")

	// One that is interrupted leaves nothing behind.
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	cut := s.command(nil, "data", "put", "-", "cut")
	cut.Stdin = reader
	if err := cut.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = writer.Write(make([]byte, 3<<20))
	waitFor(t, "the temporary file", 30*time.Second, func() bool {
		found, _ := filepath.Glob(filepath.Join(folder, ".berth-put-*"))
		return len(found) == 1
	})
	_ = cut.Process.Signal(syscall.SIGINT)
	if _ = cut.Wait(); cut.ProcessState.ExitCode() != berth.ExitCancelled {
		t.Errorf("interrupted: %s", cut.ProcessState)
	}
	waitFor(t, "nothing to be left", 30*time.Second, func() bool {
		found, _ := filepath.Glob(filepath.Join(folder, ".berth-put-*"))
		return len(found) == 0
	})
	if _, err := os.Stat(filepath.Join(folder, "cut")); err == nil {
		t.Error("half a file has its place")
	}
}

// The same on JuiceFS, which a sidecar mounts: large files, and 10,000 small ones.
func TestDataOnJuiceFS(t *testing.T) {
	t.Parallel()
	s, r := dfsSite(t, "data")
	r.format(t, 1)
	s.infra(mountDFS(r.url(1)) + s.agentLoaded())
	large := make([]byte, 64<<20)
	_, _ = rand.Read(large)
	if err := os.WriteFile(filepath.Join(s.dir, "large"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	s.must("data", "ls")
	put := s.berth("data", "put", "large", "/data/large")
	get := s.berth("data", "get", "large", "back")
	if back, err := os.ReadFile(filepath.Join(s.dir, "back")); err != nil || !bytes.Equal(back, large) {
		t.Errorf("%d bytes came back, %v\n%s%s", len(back), err, put.stderr, get.stderr)
	}
	t.Logf("64 MiB: %s%s", put.stderr, get.stderr)
	if out := s.must("run", busybox, "--", "sh", "-c", "mkdir /data/many && cd /data/many && i=0; while [ $i -lt 10000 ]; do echo $i > $i; i=$((i+1)); done; sha256sum /data/large"); !strings.Contains(out, "/data/large") {
		t.Errorf("%q", out)
	}
	if out := s.must("data", "ls", "many"); strings.Count(out, "\n") != 10000 {
		t.Errorf("%d files are listed", strings.Count(out, "\n"))
	}
	get = s.berth("data", "get", "-r", "many", "many")
	if found, err := os.ReadDir(filepath.Join(s.dir, "many")); err != nil || len(found) != 10000 {
		t.Errorf("%d files came, %v\n%s", len(found), err, get.stderr)
	}
	t.Logf("10,000 files: got in %s", get.took)
	began := time.Now()
	s.must("data", "rm", "-r", "many")
	t.Logf("removed in %s", time.Since(began))
}

// What keeps it from working is explained by the command itself.
func TestDataSaysWhatKeepsItFromTheFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mayBeRefused = true
	agent := s.agentLoaded()
	s.declined("infrastructure here has no shared filesystem: .*mount_dfs", "data", "ls")
	s.infra("mount_dfs: pvc:nosuch\n")
	s.declined("set registry: .* agent_image", "data", "ls")
	s.infra(agent + "mount_dfs: pvc:nosuch\n")
	s.declined(`would not take this task|does not start .*VolumeUnbound.*nosuch`, "data", "ls")
	s.share("shared")
	s.infra(agent + "mount_dfs: pvc:shared\n")
	s.declined("Forbidden.*pods/portforward.*data", "data", "ls")
	s.infra(agent + "mount_dfs: {url: \"pvc:shared\", read_only: true}\n")
	s.declined("mounted read-only", "data", "rm", "x")
	s.declined("mounted read-only", "data", "put", "infra.yml", "x")
}

// Where a proxy doesn't let SPDY through, a websocket does it.
func TestDataThroughAProxyWithoutSPDY(t *testing.T) {
	t.Parallel()
	s, folder := newShared(t, "", "data")
	websockets, refused := s.withoutSPDY()
	s.must("data", "put", "infra.yml", "x")
	if data, err := os.ReadFile(filepath.Join(folder, "x")); err != nil || len(data) == 0 || websockets.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d bytes, %v; %d websockets, %d refused", len(data), err, websockets.Load(), refused.Load())
	}
}

// withoutSPDY has the site reach the API server through a proxy that knows
// websockets and not SPDY, and counts both.
func (s *site) withoutSPDY() (websockets, refused *atomic.Int32) {
	s.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		s.t.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	websockets, refused = new(atomic.Int32), new(atomic.Int32)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: tlsConfig.RootCAs}}
	proxy.FlushInterval = -1
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch upgrade := strings.ToLower(r.Header.Get("Upgrade")); {
		case strings.HasPrefix(upgrade, "spdy"):
			refused.Add(1)
			http.Error(w, "this proxy does not know that protocol", http.StatusBadRequest)
			return
		case upgrade == "websocket":
			websockets.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	s.t.Cleanup(server.Close)
	s.editKubeconfig(func(cluster *api.Cluster, _ *api.AuthInfo) {
		cluster.Server = server.URL
		cluster.CertificateAuthorityData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	})
	return websockets, refused
}

// Through a server it is for those who may run tasks there.
func TestDataThroughAServer(t *testing.T) {
	t.Parallel()
	s := newSite(t, "functions", "data")
	s.share("shared")
	o := officeOf(s, true, "mount_dfs: pvc:shared\n")
	token := func(name, role string, more ...string) string {
		return strings.TrimSpace(o.must(append([]string{"server", "token", "create", name, "--role", role}, more...)...))
	}
	remote := func(token string, args ...string) result {
		return o.berthEnv([]string{"BERTH_SERVER=https://" + o.address, "BERTH_TOKEN=" + token, "BERTH_CA_FILE=" + filepath.Join(o.dir, ".berth", "ca.pem")}, args...)
	}
	writer, reader, other := token("ann", "write"), token("bob", "read"), token("eve", "write", "--on", "elsewhere")
	if r := remote(writer, "data", "put", "infra.yml", "x/y"); r.code != 0 {
		t.Fatalf("%s", r.stderr)
	}
	if r := remote(writer, "data", "get", "x/y", "-"); r.code != 0 || !strings.Contains(r.stdout, "pvc:shared") {
		t.Errorf("%+v", r)
	}
	if r := remote(reader, "data", "ls"); r.code == 0 || !strings.Contains(r.stderr, "role read") {
		t.Errorf("a token of role read: %+v", r)
	}
	if r := remote(other, "data", "ls", "--on", "here"); r.code == 0 || !strings.Contains(r.stderr, "restricted") {
		t.Errorf("a token for elsewhere: %+v", r)
	}
	// Its pod is the server's own: nobody's list has it but an admin's.
	if r := remote(writer, "task", "list", "-o", "json"); r.code != 0 || strings.TrimSpace(r.stdout) != "[]" {
		t.Errorf("%+v", r)
	}
}

// Whichever of several servers is asked, the one that holds the infrastructure
// reaches its files; when that dies the next one does, by the same pod.
func TestDataThroughSeveralServers(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "data")
	f.one.share("shared")
	f.two.share("shared")
	agent := f.one.load("berth/let")
	text := "infrastructures:\n"
	for name, s := range map[string]*site{"one": f.one, "two": f.two} {
		text += fmt.Sprintf("  %s: {kind: kube, namespace: %s, credentials: {mechanism: config, path: %s}, agent_image: %q, mount_dfs: \"pvc:shared\"}\n", name, s.namespace, s.kubeconfig, agent)
	}
	f.one.write("infra.yml", text)
	f.one.write("large", strings.Repeat("0123456789abcdef", 1<<18))
	a, b := f.serve("a"), f.serve("b")
	var held map[string]int
	waitFor(t, "each holds one", 60*time.Second, func() bool {
		held = b.holders(a, b)
		return held["one"]+held["two"] == 3 && held["one"] != 0 && held["two"] != 0
	})
	for _, on := range []string{"one", "two"} {
		a.must("data", "put", "large", "large", "--on", on)
		b.must("data", "get", "large", on, "--on", on)
		if got, err := os.ReadFile(filepath.Join(f.one.dir, on)); err != nil || len(got) != 4<<20 {
			t.Errorf("%s: %d bytes, %v", on, len(got), err)
		}
	}
	a.kill()
	for _, on := range []string{"one", "two"} {
		if out := b.must("data", "ls", "--on", on); out != "/data/large\n" {
			t.Errorf("%s: %q", on, out)
		}
	}
	for name, s := range map[string]*site{"one": f.one, "two": f.two} {
		if pods := s.pods(); len(pods) != 1 {
			t.Errorf("%s: %d pods serve it", name, len(pods))
		}
	}
}

// A function's files are paths on what is shared, for the next one too.
func TestDataFilesOfFunctions(t *testing.T) {
	t.Parallel()
	s, folder := newShared(t, "", "data", "functions")
	s.script("files", `case "$1" in
make) echo "$TEXT" > "$BERTH_WORK/made.txt"; echo "out: $BERTH_WORK/made.txt" ;;
count) echo "out: $(wc -c < "$IN")" ;;
lost) echo x > /tmp/x; echo "out: /tmp/x" ;;
esac
`, `make:
  command: {args: [make]}
  input: [{name: text, type: string}]
  output: [{name: out, type: File}]
count:
  command: {args: [count]}
  input: [{name: in, type: File}]
  output: [{name: out, type: integer}]
lost:
  command: {args: [lost]}
  output: [{name: out, type: File}]
`)
	s.load("files")
	made, r := s.call("files", "make", "text=twelve bytes")
	var path string
	if err := json.Unmarshal(made.Result, &path); err != nil || path != "/data/.berth/work/"+made.ID+"/made.txt" {
		t.Fatalf("%s, %v\n%s", made.Result, err, r.stderr)
	}
	if counted, r := s.call("files", "count", "in="+path); string(counted.Result) != "13" {
		t.Errorf("%s\n%s", counted.Result, r.stderr)
	}
	if err := os.WriteFile(filepath.Join(folder, "four"), []byte("four"), 0o644); err != nil {
		t.Fatal(err)
	}
	if counted, r := s.call("files", "count", "in=four"); string(counted.Result) != "4" {
		t.Errorf("relative: %s\n%s", counted.Result, r.stderr)
	}
	if none, _ := s.call("files", "count", "in=nosuch"); none.Diagnosis == nil || none.Diagnosis.Cause != berth.CauseConfigNotFound || !strings.Contains(none.Diagnosis.Summary, "there is no /data/nosuch") {
		t.Errorf("%+v", none.Diagnosis)
	}
	if lost, _ := s.call("files", "lost"); lost.Diagnosis == nil || lost.Diagnosis.Cause != berth.CauseResultMalformed || !strings.Contains(lost.Diagnosis.Summary, "not below /data") {
		t.Errorf("%+v", lost.Diagnosis)
	}
}

// What tasks left in their working folders is removed when they have ended, but
// for what somebody may still want.
func TestDataCleanRemovesWhatEndedTasksLeft(t *testing.T) {
	t.Parallel()
	s, folder := newShared(t, "", "data")
	leave := func(script string, code int) string {
		t.Helper()
		id := s.detach(busybox, "--", "sh", "-c", `mkdir -p "$BERTH_WORK" && echo left > "$BERTH_WORK/x"; `+script)
		if code >= 0 {
			if r := s.berth("task", "wait", id); r.code != code {
				t.Fatalf("exit %d\n%s", r.code, r.stderr)
			}
		}
		return id
	}
	failed, succeeded := leave("exit 3", 3), leave("exit 0", 0)
	runs := leave("echo began; until [ -e /data/end ]; do sleep 0.2; done", -1)
	s.following(runs, "began")
	if err := os.Mkdir(filepath.Join(folder, ".berth/work/of-somebody-else"), 0o755); err != nil {
		t.Fatal(err)
	}
	left := func() string {
		entries, err := os.ReadDir(filepath.Join(folder, ".berth/work"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	sorted := func(names ...string) string {
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	all := sorted(failed, succeeded, runs, "of-somebody-else")
	r := s.berth("data", "clean", "--dry-run")
	if r.code != 0 || strings.Count(r.stdout, "\n") != 2 || !strings.Contains(r.stderr, "would remove 2 of 4") || left() != all {
		t.Errorf("exit %d: %q, %q; left: %s", r.code, r.stdout, r.stderr, left())
	}
	if r := s.berth("data", "clean", "--older-than", "1h"); r.code != 0 || !strings.Contains(r.stderr, "kept 2: its task ended too lately") || left() != all {
		t.Errorf("exit %d: %q; left: %s", r.code, r.stderr, left())
	}
	r = s.berth("data", "clean")
	if r.code != 0 || !strings.Contains(r.stdout, "/data/.berth/work/"+failed+" (task failed)") || left() != sorted(runs, "of-somebody-else") {
		t.Errorf("exit %d: %q, %q; left: %s", r.code, r.stdout, r.stderr, left())
	}
	s.declined("--older-than -1h0m0s is before now", "data", "clean", "--older-than", "-1h")
	s.must("data", "put", "infra.yml", "end")
	s.must("task", "wait", runs)
	s.must("data", "clean", "-o", "json")
	if left() != "of-somebody-else" {
		t.Errorf("left: %s", left())
	}
}
