//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/s3test"
)

// dfsSite is a site whose tasks share a JuiceFS of a Redis of its own.
func dfsSite(t *testing.T, profiles ...string) (*site, *redis) {
	t.Helper()
	loadJuiceFS(t)
	r := newRedis(t)
	s := newSite(t, append([]string{"functions"}, profiles...)...)
	s.write("secrets.yml", "redis: "+redisPassword+"\n")
	s.infra(mountDFS(r.url(1)))
	return s, r
}

func mountDFS(url string) string {
	return fmt.Sprintf("mount_dfs: {url: %q, image: %q}\n", url, juicefsImage)
}

// format makes the volume whose metadata is in a database of the server, and
// its blocks in another.
func (r *redis) format(t *testing.T, number int, flags ...string) {
	t.Helper()
	program, err := juicefs()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"format", "--storage", "redis", "--bucket", "redis://" + r.address + "/9", "--access-key", "default", "--secret-key", redisPassword}, flags...)
	cmd := exec.Command(program, append(args, fmt.Sprintf("redis://:%s@%s/%d", redisPassword, r.address, number), fmt.Sprintf("volume-%d", number))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("juicefs format: %v\n%s", err, out)
	}
}

// What one task writes below /data is there for the next one, which runs as
// somebody else. Neither of their containers is privileged.
func TestDFSFilesOfOneTaskAreTheNextOnes(t *testing.T) {
	t.Parallel()
	s, r := dfsSite(t)
	r.format(t, 1)
	s.must("run", busybox, "sh", "-c", "echo from the first > /data/words && grep CapEff /proc/self/status")
	out := s.must("run", "--user", "1000:1000", busybox, "sh", "-c", "cat /data/words; echo second > /data/own; grep CapEff /proc/self/status")
	if !strings.Contains(out, "from the first\n") || !strings.Contains(out, "CapEff:\t0000000000000000") {
		t.Errorf("the second task printed %q", out)
	}
	if out := s.must("run", busybox, "sh", "-c", "cat /data/own"); out != "second\n" {
		t.Errorf("the third task printed %q", out)
	}
}

// mountPatience gives a mount that fails a moment to recover, and one that
// takes its time all of that.
const mountPatience = "grace: {config_grace: 3s, start_timeout: 3m}\n"

// berth infra dfs init makes a volume, once, from a pod of the namespace.
func TestDFSInit(t *testing.T) {
	t.Parallel()
	s, r := dfsSite(t)
	if out := s.must("infra", "dfs", "init"); out != fmt.Sprintf("made volume here at redis://%s/1, its blocks in redis redis://%s/2\n", r.address, r.address) {
		t.Errorf("it printed %q", out)
	}
	s.must("run", busybox, "sh", "-c", "echo kept > /data/x")
	refused := func(phrases []string, args ...string) {
		t.Helper()
		r := s.berth(append([]string{"infra", "dfs", "init"}, args...)...)
		if r.code != berth.ExitNone || r.stdout != "" || strings.Contains(r.stderr, redisPassword) {
			t.Errorf("exit %d, %q\n%s", r.code, r.stdout, r.stderr)
		}
		for _, phrase := range phrases {
			if !strings.Contains(r.stderr, phrase) {
				t.Errorf("the error lacks %q:\n%s", phrase, r.stderr)
			}
		}
	}
	refused([]string{"there is a volume", "nothing of it was touched"})
	if out := s.must("run", busybox, "cat", "/data/x"); out != "kept\n" {
		t.Errorf("after a second init: %q", out)
	}
	s.infra(mountDFS(r.url(5)))
	refused([]string{"could not be made", r.address + "/6", "WRONGPASS"}, "--storage", "redis", "--bucket", "redis://"+r.address+"/6", "--access-key", "default", "--secret-key-file", s.write("key", "wrong\n"))
	refused([]string{"say where it is"}, "--storage", "minio")
	refused([]string{"1Gi or more"}, "--capacity", "5Mi")
	refused([]string{"lower-case letters"}, "--name", "Ü")
	s.infra(mountDFS(strings.Replace(r.url(7), r.address, hostOf(r.address)+":1", 1)))
	refused([]string{"can't be used from a pod", ":1"})
	s.infra("")
	refused([]string{"no shared filesystem", "mount_dfs"})
	waitFor(t, "no pod is left", 60*time.Second, func() bool { return len(s.pods()) == 0 })
}

// The blocks of a volume may be in any storage that JuiceFS knows: here in a
// bucket with the protocol of S3 and MinIO.
func TestDFSWithItsBlocksInABucket(t *testing.T) {
	t.Parallel()
	s, r := dfsSite(t)
	bucket := s3test.NewPlain(t, hostOf(r.address))
	out := s.must("infra", "dfs", "init", "--storage", "minio", "--bucket", bucket.Endpoint()+"/"+s3test.Bucket, "--access-key", s3test.AccessKey, "--secret-key-file", s.write("key", s3test.SecretKey+"\n"))
	if !strings.Contains(out, "its blocks in minio "+bucket.Endpoint()) || strings.Contains(out, s3test.SecretKey) {
		t.Errorf("it printed %q", out)
	}
	sum := s.must("run", busybox, "sh", "-c", "head -c 20000000 /dev/urandom > /data/x; md5sum < /data/x")
	if got := s.must("run", busybox, "sh", "-c", "md5sum < /data/x"); got != sum {
		t.Errorf("the second task read %s, the first one wrote %s", got, sum)
	}
	if blocks := bucket.Objects(t, "here/chunks/"); len(blocks) < 5 {
		t.Errorf("the bucket holds %q", blocks)
	}
	for _, task := range s.tasks() {
		if all := s.must("task", "get", task.ID, "-o", "json") + s.must("task", "events", task.ID); strings.Contains(all, s3test.SecretKey) {
			t.Errorf("%s shows the storage's key", task.ID)
		}
	}
	bucket.Stop()
	s.infra(mountPatience + mountDFS(r.url(1)))
	s.fail([]diagnosisCase{{"a bucket that is away", []string{busybox, "true"}, 125, berth.CauseMountFailed, []string{"keeps its blocks in can't be used", r.address}}})
}

func hostOf(address string) string {
	host, _, _ := strings.Cut(address, ":")
	return host
}

// Tasks on two clusters share what is in one Redis.
func TestDFSOfTwoClusters(t *testing.T) {
	if testing.Short() {
		t.Skip("brings up a second cluster")
	}
	s, r := dfsSite(t)
	s.must("infra", "dfs", "init")
	other := otherCluster(t, s, hostOf(r.address))
	s.write("infra.yml", "infrastructures:\n"+entryOf("here", s.namespace, s.kubeconfig, mountDFS(r.url(1)))+entryOf("there", "berth", other, mountDFS(r.url(1))))
	s.must("run", "--on", "here", busybox, "sh", "-c", "head -c 30000000 /dev/urandom > /data/x; md5sum < /data/x > /data/sum")
	if out := s.must("run", "--on", "there", busybox, "sh", "-c", "md5sum < /data/x | cmp - /data/sum && echo same > /data/verdict; cat /data/verdict"); out != "same\n" {
		t.Errorf("the other cluster's task printed %q", out)
	}
	if out := s.must("run", "--on", "here", busybox, "cat", "/data/verdict"); out != "same\n" {
		t.Errorf("back on the first cluster: %q", out)
	}
}

func entryOf(name, namespace, kubeconfig, more string) string {
	text := fmt.Sprintf("  %s:\n    kind: kube\n    namespace: %s\n    credentials: {mechanism: config, path: %s}\n", name, namespace, kubeconfig)
	for line := range strings.Lines(more) {
		text += "    " + line
	}
	return text
}

// otherCluster brings up a second cluster, and returns a kubeconfig that may
// run tasks in its namespace berth, and whose pods reach an address of this machine.
func otherCluster(t *testing.T, s *site, address string) string {
	t.Helper()
	binary, err := filepath.Abs("../../bin/localkube")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(filepath.Dir(statePath(t, "host-ip"))) + "-other"
	localkube := func(args ...string) {
		t.Helper()
		cmd := exec.Command(binary, append(args, "--name", name)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("localkube %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() { localkube("down") })
	localkube("up")
	// Of this machine it reaches its own address alone.
	var kubelet struct{ PID int }
	text, err := os.ReadFile(filepath.Join(dir, ".localkube", name, "processes", "kubelet.json"))
	if err == nil {
		err = json.Unmarshal(text, &kubelet)
	}
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := os.ReadFile(filepath.Join(dir, ".localkube", name, "host-ip"))
	if err != nil {
		t.Fatal(err)
	}
	route := exec.Command("nsenter", "-t", strconv.Itoa(kubelet.PID), "-n", "ip", "route", "add", address+"/32", "via", strings.TrimSpace(string(gateway)))
	if out, err := route.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", route, err, out)
	}
	archive := juicefsArchive(t)
	localkube("load", archive)
	kubeconfig := filepath.Join(s.dir, "other")
	admin := filepath.Join(dir, ".localkube", name, "kubeconfig")
	if r := s.berthEnv([]string{"KUBECONFIG=" + admin}, "create-kubeconfig", "--namespace", "berth", "-o", kubeconfig, "--profile", "functions"); r.code != 0 {
		t.Fatalf("create-kubeconfig: exit %d\n%s", r.code, r.stderr)
	}
	return kubeconfig
}

// others writes infra.yml with an entry for each way to be wrong.
func (s *site) others(mounts map[string]string) {
	s.t.Helper()
	text := "infrastructures:\n"
	for name, mount := range mounts {
		text += entryOf(name, s.namespace, s.kubeconfig, mount+mountPatience)
	}
	s.write("infra.yml", text)
}

func TestDFSThatCannotBeMountedSaysWhy(t *testing.T) {
	s, r := dfsSite(t)
	s.record()
	s.write("secrets.yml", "redis: "+redisPassword+"\nwrong: not-the-password\n")
	away := newRedis(t)
	away.format(t, 1)
	r.format(t, 3, "--bucket", "redis://"+away.address+"/9") // its blocks are in a Redis that is away
	r.format(t, 4, "--inodes", "20")
	r.format(t, 5)
	away.kill()
	s.others(map[string]string{
		"unformatted": mountDFS(r.url(2)),
		"password":    mountDFS(strings.Replace(r.url(1), "secret:redis", "secret:wrong", 1)),
		"no-password": mountDFS("redis://" + r.address + "/1"),
		"away":        mountDFS(away.url(1)),
		"blocks":      mountDFS(r.url(3)),
		"full":        mountDFS(r.url(4)),
		"no-fuse":     strings.Replace(mountDFS(r.url(5)), juicefsImage, juicefsNoFUSE, 1),
	})
	on := func(where string, command ...string) []string {
		if len(command) == 0 {
			command = []string{"true"}
		}
		return append([]string{"--on", where, busybox}, command...)
	}
	s.fail([]diagnosisCase{
		{"a volume that was never formatted", on("unformatted"), 125, berth.CauseMountFailed, []string{"no JuiceFS volume at redis://" + r.address + "/2", "never formatted"}},
		{"a wrong password", on("password"), 125, berth.CauseMountFailed, []string{"does not accept the login", r.address}},
		{"no password", on("no-password"), 125, berth.CauseMountFailed, []string{"does not accept the login", r.address}},
		{"a Redis that is down", on("away"), 125, berth.CauseMountFailed, []string{"can't be reached", away.address}},
		{"a full volume", on("full", "sh", "-c", "cd /data; for i in $(seq 30); do touch $i || exit 3; done"), 3, berth.CauseExitedNonZero, []string{"a disk is full", "/data"}},
		{"a node without FUSE", on("no-fuse"), 125, berth.CauseMountFailed, []string{"has no FUSE"}},
		{"blocks that are away", on("blocks", "sh", "-c", "echo x > /data/x"), 125, berth.CauseMountFailed, []string{"storage", r.address}},
	})
	for _, task := range s.tasks() {
		if out := s.must("task", "get", task.ID, "-o", "json") + s.must("task", "events", task.ID); strings.Contains(out, redisPassword) || strings.Contains(out, "not-the-password") {
			t.Errorf("%s shows a password", task.ID)
		}
	}
	for _, pod := range s.pods() {
		if text := fmt.Sprint(pod.Spec); strings.Contains(text, redisPassword) || strings.Contains(text, "not-the-password") {
			t.Errorf("%s holds a password in clear", pod.Name)
		}
	}
}

// A namespace whose Pod Security forbids the sidecar says so before anything
// is made.
func TestDFSNeedsANamespaceThatAllowsTheSidecar(t *testing.T) {
	s, r := dfsSite(t)
	s.record()
	r.format(t, 1)
	patch := []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}`)
	if _, err := admin.CoreV1().Namespaces().Patch(t.Context(), s.namespace, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	s.infra(impatient + mountDFS(r.url(1)))
	s.fail([]diagnosisCase{{"baseline", []string{busybox, "true"}, 125, berth.CausePodSecurityViolated, []string{"baseline", "berth-dfs", "privileged"}}})
	if text := s.must("task", "explain", s.byName("case-0")); !strings.Contains(text, "pvc:NAME") || !strings.Contains(text, "mount_dfs") {
		t.Errorf("the remedy does not say what mount_dfs needs: %s", text)
	}
}

// A mount that is killed under a task: the task's program gets errors and
// nothing hangs, and Berth says what happened, while it runs and after.
func TestDFSMountThatDiesUnderATask(t *testing.T) {
	s, r := dfsSite(t)
	s.record()
	r.format(t, 1)
	id := s.detach(busybox, "sh", "-c", "echo here > /data/x; echo written; while cat /data/x > /dev/null; do sleep 0.2; done; until [ -e /tmp/end ]; do sleep 0.2; [ $((i = i + 1)) -lt 100 ] || break; done; exit 5")
	s.following(id, "written")
	pids := r.mounters(t)
	if len(pids) != 1 {
		t.Fatalf("%d processes mount", len(pids))
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	host := s.start("task", "wait", id)
	s.explainedAs(id, berth.CauseMountFailed, "the mount of /data ended while the program ran", 60*time.Second)
	if r := host.wait(within(t, 90*time.Second)); r.code != 5 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	check(t, s.explained(id), berth.CauseMountFailed, "The mount of /data ended while the program ran")
}

// A plain task has a working folder too, which is gone when nothing is left in it.
func TestDFSWorkingFoldersOfPlainTasks(t *testing.T) {
	t.Parallel()
	s, r := dfsSite(t)
	r.format(t, 1)
	s.must("run", "--user", "1000:1000", busybox, "sh", "-c", `cd "$BERTH_WORK" && echo kept > x && [ "$PWD" = "/data/.berth/work/${PWD##*/}" ]`)
	s.must("run", busybox, "sh", "-c", `cd "$BERTH_WORK" && echo gone > x && rm x`)
	waitFor(t, "one folder is left", 60*time.Second, func() bool {
		return s.must("run", busybox, "sh", "-c", `cd /data/.berth/work && rmdir "$BERTH_WORK" && cat */x; ls | wc -l`) == "kept\n1\n"
	})
	s.infra(strings.Replace(mountDFS(r.url(1)), "url:", "keep_work: never, url:", 1))
	id := s.detach(busybox, "sh", "-c", `cd "$BERTH_WORK" && echo never > x; exit 1`)
	s.berth("task", "wait", id)
	waitFor(t, "its folder is removed", 60*time.Second, func() bool {
		return !strings.Contains(s.must("run", busybox, "ls", "/data/.berth/work"), id)
	})
}

// Where Redis is silent, whatever waits for the mount ends with its pod: nothing
// stays behind on the node.
func TestDFSRedisThatIsSilentKeepsNoPod(t *testing.T) {
	t.Parallel()
	s, r := dfsSite(t)
	r.format(t, 1)
	id := s.detach(busybox, "sh", "-c", "echo written; until [ -e /data/$((i += 1)) ]; do sleep 0.1; done")
	s.following(id, "written")
	if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.explainedAs(id, berth.CauseMountFailed, "does not answer", 60*time.Second)
	s.must("task", "cancel", id)
	if r := s.berth("task", "wait", id); r.code != berth.ExitCancelled {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	waitFor(t, "the pod is gone", 60*time.Second, func() bool { return len(s.pods()) == 0 })
	waitFor(t, "nothing waits on the node", 60*time.Second, func() bool { return len(r.mounters(t)) == 0 })
}

// A Redis that is away for a while: the task says so while it waits, and goes
// on when it is back.
func TestDFSRedisThatIsAwayForAWhile(t *testing.T) {
	s, r := dfsSite(t)
	s.record()
	r.format(t, 1)
	id := s.detach(busybox, "sh", "-c", "echo written; i=0; until [ -e /data/go-on ]; do sleep 0.5; done; cat /data/go-on")
	host := s.start("task", "wait", id)
	s.following(id, "written")
	if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.explainedAs(id, berth.CauseMountFailed, "The shared filesystem at /data does not answer", 60*time.Second)
	var evidence []berth.Evidence
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("its evidence: %+v", evidence)
		}
	})
	waitFor(t, "the probe itself says so", 60*time.Second, func() bool {
		evidence = s.explained(id).Evidence
		return slices.ContainsFunc(evidence, func(e berth.Evidence) bool { return strings.Contains(e.Text, "nothing within 8 s") })
	})
	if err := r.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the task's diagnosis is cleared", 60*time.Second, func() bool { return s.task(id).Diagnosis == nil })
	s.must("run", busybox, "sh", "-c", "echo on > /data/go-on")
	if r := host.wait(within(t, 60*time.Second)); r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}

// A claim of the namespace is shared without any privilege.
func TestDFSOfAClaim(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := os.Chmod(s.share("shared"), 0o777); err != nil {
		t.Fatal(err)
	}
	s.infra("mount_dfs: pvc:shared\npod: {security: restricted}\n")
	s.must("run", "--user", "1000:1000", busybox, "sh", "-c", "echo mine > /data/x")
	if out := s.must("run", "--user", "1000:1000", busybox, "cat", "/data/x"); out != "mine\n" {
		t.Errorf("the second task printed %q", out)
	}
	s.infra("mount_dfs: {url: pvc:shared, path: /shared, read_only: true}\n")
	r := s.berth("run", busybox, "sh", "-c", "cat /shared/x; echo more > /shared/x")
	if r.code == 0 || !strings.Contains(r.stdout, "mine\n") || !strings.Contains(r.stdout+r.stderr, "Read-only file system") {
		t.Errorf("exit %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	s.infra(impatient + "mount_dfs: pvc:no-such-claim\n")
	s.fail([]diagnosisCase{{"a claim that isn't there", []string{busybox, "true"}, 125, berth.CauseVolumeUnbound, []string{"no-such-claim"}}})
}

// mounters are the processes that mount the server's volumes.
func (r *redis) mounters(t *testing.T) []int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range paths {
		text, _ := os.ReadFile(path) // it may have ended
		if words := strings.Fields(strings.ReplaceAll(string(text), "\x00", " ")); len(words) > 2 && words[1] == "mount" && strings.Contains(words[2], r.address) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// following waits until a task has printed a line.
func (s *site) following(id, line string) {
	s.t.Helper()
	waitFor(s.t, "the task prints "+line, 60*time.Second, func() bool {
		return strings.Contains(s.berth("task", "logs", id).stdout, line)
	})
}

// explainedAs waits until a task that runs is diagnosed.
func (s *site) explainedAs(id string, cause berth.Cause, summary string, limit time.Duration) {
	s.t.Helper()
	waitFor(s.t, "the task is diagnosed as "+string(cause), limit, func() bool {
		task := s.task(id)
		return task.Diagnosis != nil && task.Diagnosis.Cause == cause && strings.Contains(strings.ToLower(task.Diagnosis.Summary), strings.ToLower(summary))
	})
}

// A pod with both has its shared files through the proxy too.
func TestDFSBehindAProxy(t *testing.T) {
	t.Parallel()
	s, r := dfsSite(t, "proxy")
	g := newGateway(t, nil)
	to := greeter(t)
	s.behind("socks5://"+g.address, mountDFS(r.url(1)))
	s.must("infra", "dfs", "init")
	s.must("run", busybox, "--", "sh", "-c", "wget -q -O - http://"+to+"/files > /data/x")
	if out := s.must("run", busybox, "cat", "/data/x"); out != "hello files 0\n" {
		t.Errorf("the second task printed %q", out)
	}
	if g.saw(r.address) == 0 {
		targets, _ := g.seen()
		t.Errorf("the filesystem was not reached through the proxy: %q", targets)
	}
}
