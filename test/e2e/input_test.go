//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/berth-run/berth"
)

// refused asserts what every bad input comes to: exit code 125, one message on
// stderr that has the phrases, soon, and no pod.
func (s *site) refused(r result, phrases ...string) {
	s.t.Helper()
	if r.code != 125 || r.stdout != "" || r.took > 15*time.Second {
		s.t.Errorf("exit %d after %s, stdout %q", r.code, r.took, r.stdout)
	}
	if !strings.HasPrefix(r.stderr, "berth: ") || strings.Count(r.stderr, "\n") != 1 {
		s.t.Errorf("stderr is not one line of Berth's:\n%s", r.stderr)
	}
	for _, phrase := range phrases {
		if !strings.Contains(r.stderr, phrase) {
			s.t.Errorf("the error lacks %q:\n%s", phrase, r.stderr)
		}
	}
	if pods := s.pods(); len(pods) != 0 {
		s.t.Errorf("%d pods were created", len(pods))
	}
}

// certificate makes a certificate of a CA of its own, valid until a time, for a
// client or for servers at the addresses, and gives it, its key and the CA as PEM.
func certificate(t *testing.T, until time.Time, addresses ...string) (cert, key, ca []byte) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "someone", Organization: []string{"elsewhere"}},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	must(err)
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), cert
}

func TestBadInputOfKubeconfigs(t *testing.T) {
	withCertificate := func(until time.Duration) func(*site) {
		return func(s *site) {
			cert, key, _ := certificate(s.t, time.Now().Add(until))
			s.editKubeconfig(func(_ *api.Cluster, user *api.AuthInfo) {
				user.Token, user.ClientCertificateData, user.ClientKeyData = "", cert, key
			})
		}
	}
	text := func(text string) func(*site) { return func(s *site) { s.write("kubeconfig", text) } }
	tests := []struct {
		name    string
		spoil   func(*site)
		phrases []string
	}{
		{"missing", func(s *site) { os.Remove(s.kubeconfig) }, []string{"kubeconfig does not exist", "create-kubeconfig", "credentials.path"}},
		{"empty", text(""), []string{"is empty", "get it again"}},
		{"not YAML", text("{{{ this is: not\n"), []string{"is not a kubeconfig"}},
		{"without a context", text("apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n"), []string{"has no contexts", "create-kubeconfig"}},
		{"without a current context", text("apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"), []string{"no current-context", "credentials.context", ": a"}},
		{"an expired client certificate", withCertificate(-time.Hour), []string{"client certificate expired on", "create-kubeconfig"}},
		{"a client certificate of another CA", withCertificate(time.Hour), []string{"does not accept the credentials", "create-kubeconfig"}},
		{"another CA", func(s *site) {
			_, _, ca := certificate(s.t, time.Now().Add(time.Hour))
			s.editKubeconfig(func(cluster *api.Cluster, _ *api.AuthInfo) { cluster.CertificateAuthorityData = ca })
		}, []string{"certificate is not signed by", "certificate authority in the kubeconfig"}},
		{"a wrong token", func(s *site) {
			s.editKubeconfig(func(_ *api.Cluster, user *api.AuthInfo) { user.Token = "x.y.z" })
		}, []string{"does not accept the credentials", "create-kubeconfig"}},
		{"a dead address", func(s *site) {
			s.editKubeconfig(func(cluster *api.Cluster, _ *api.AuthInfo) {
				cluster.Server = "https://" + closedPort(s.t, "127.0.0.1")
			})
		}, []string{"127.0.0.1:", "connection", "kubeconfig"}},
		{"an address that no name server knows", func(s *site) {
			s.editKubeconfig(func(cluster *api.Cluster, _ *api.AuthInfo) { cluster.Server = "https://nowhere.invalid:6443" })
		}, []string{"nowhere.invalid"}},
	}
	s := newSite(t)
	good, err := os.ReadFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &site{t: t, dir: s.dir, namespace: s.namespace, kubeconfig: s.kubeconfig}
			s.write("kubeconfig", string(good))
			test.spoil(s)
			s.refused(s.berth("run", busybox, "true"), test.phrases...)
			s.write("kubeconfig", string(good))
			if tasks := s.tasks(); len(tasks) != 0 {
				t.Errorf("%d tasks were stored", len(tasks))
			}
		})
	}
}

func TestBadInputOfInfraFiles(t *testing.T) {
	s := newSite(t)
	s.mayBeRefused = true // it names a namespace that is not its own
	entry := func(name string) string {
		return "  " + name + ":\n    kind: kube\n    namespace: " + s.namespace + "\n    credentials: {mechanism: config, path: ./kubeconfig}\n"
	}
	tests := []struct {
		name    string
		text    string
		phrases []string
	}{
		{"a typo", "infrastructures:\n" + entry("here") + "    namespce: x\n", []string{"infra.yml", "6", "namespce", "namespace"}},
		{"a name twice", "infrastructures:\n" + entry("here") + entry("here"), []string{"infra.yml", "6", "here"}},
		{"a wrong type", "infrastructures:\n" + entry("here") + "    limits: {max_pods: many}\n", []string{"infra.yml", "6", "max_pods", "whole number"}},
		{"a reference to nothing", "infrastructures:\n" + entry("here") + "    pod: {priority_class: \"${env:NOT_SET_HERE}\"}\n", []string{"infra.yml", "6", "NOT_SET_HERE"}},
		{"a password in clear", "infrastructures:\n" + entry("here") + "    proxy_address: socks5://ada:s3cret@proxy:1080\n", []string{"infra.yml", "6", "proxy_address", "must not hold a password in clear"}},
		{"not YAML", "infrastructures: [}\n", []string{"infra.yml"}},
		{"no infrastructures", "infrastructures: {}\n", []string{"infra.yml"}},
		{"a namespace that does not exist", strings.ReplaceAll("infrastructures:\n"+entry("here"), s.namespace, "no-such-namespace"), []string{"no-such-namespace", "infra.yml", "create-kubeconfig"}},
		{"a namespace that does not exist, as an administrator", strings.ReplaceAll(strings.ReplaceAll("infrastructures:\n"+entry("here"), s.namespace, "no-such-namespace"), "./kubeconfig", adminKubeconfig), []string{"has no namespace no-such-namespace", "infra.yml"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &site{t: t, dir: s.dir, namespace: s.namespace, kubeconfig: s.kubeconfig}
			s.write("infra.yml", test.text)
			s.refused(s.berth("run", busybox, "true"), test.phrases...)
			s.infra("")
			if tasks := s.tasks(); len(tasks) != 0 {
				t.Errorf("%d tasks were stored", len(tasks))
			}
		})
	}
	if err := os.Remove(filepath.Join(s.dir, "infra.yml")); err != nil {
		t.Fatal(err)
	}
	s.refused(s.berth("run", busybox, "true"), "infra.yml", "berth infra add NAME --kubeconfig FILE")
}

func TestBadInputOfFlags(t *testing.T) {
	tests := []struct {
		name    string
		args    []string
		phrases []string
	}{
		{"an image in capitals", []string{"docker.io/library/Busybox:1.35"}, []string{"lower case", "docker.io/library/busybox:1.35"}},
		{"a quantity", []string{"--memory", "10x", busybox}, []string{"memory", "10x", "512Mi"}},
		{"a name with a slash", []string{"--name", "a/b", busybox}, []string{`"a/b"`, "letters, digits"}},
		{"an infrastructure that is not there", []string{"--on", "ther", busybox}, []string{`"ther"`, "it has here"}},
		{"no image", nil, []string{"no image", "berth run IMAGE"}},
		{"an unknown flag", []string{"--memry", "1Gi", busybox}, []string{"--memry", "--help"}},
		{"a user by name", []string{"--user", "nobody", busybox}, []string{"nobody", "1000:1000"}},
		{"a timeout of nothing", []string{"--timeout", "0s", busybox}, []string{"--timeout", "1s"}},
		{"a task file that is not there", []string{"-f", "nowhere.yaml"}, []string{"nowhere.yaml"}},
	}
	s := newSite(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &site{t: t, dir: s.dir, namespace: s.namespace, kubeconfig: s.kubeconfig}
			s.refused(s.berth(append([]string{"run"}, test.args...)...), test.phrases...)
			if tasks := s.tasks(); len(tasks) != 0 {
				t.Errorf("%d tasks were stored", len(tasks))
			}
		})
	}
}

// disk mounts a filesystem of its own as the site's data directory.
func (s *site) disk(options string, flags uintptr) string {
	s.t.Helper()
	dir := filepath.Join(s.dir, "disk")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Mount("berth-e2e", dir, "tmpfs", flags, options); err != nil {
		s.t.Fatalf("mounting a filesystem (the end-to-end tests run as root): %v", err)
	}
	s.t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s.env = append(s.env, "BERTH_DATA="+filepath.Join(dir, "data"))
	return dir
}

// fill leaves no room on a disk, and returns what makes room again.
func fill(t *testing.T, disk string) (free func()) {
	t.Helper()
	path := filepath.Join(disk, "ballast")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		for {
			if _, err := file.Write(bytes.Repeat([]byte{1}, size)); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadInputOfReadOnlyDisks(t *testing.T) {
	t.Run("with no data directory", func(t *testing.T) {
		s := newSite(t)
		s.disk("size=1m", syscall.MS_RDONLY)
		s.refused(s.berth("run", busybox, "true"), "read-only", "--data", "BERTH_DATA")
	})
	t.Run("with one", func(t *testing.T) {
		s := newSite(t)
		disk := s.disk("size=8m", 0)
		s.must("run", busybox, "true")
		waitFor(t, "its pod is deleted", 30*time.Second, func() bool { s.must("task", "list"); return len(s.pods()) == 0 })
		if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		s.refused(s.berth("run", busybox, "true"), "read-only", "--data", "BERTH_DATA")
		if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
		if tasks := s.tasks(); len(tasks) != 1 {
			t.Errorf("there are %d tasks", len(tasks))
		}
	})
}

func TestBadInputOfFullDisks(t *testing.T) {
	t.Run("with no data directory", func(t *testing.T) {
		s := newSite(t)
		free := fill(t, s.disk("size=1m", 0))
		s.refused(s.berth("run", busybox, "true"), "disk is full", "free some space")
		free()
		if tasks := s.tasks(); len(tasks) != 0 {
			t.Errorf("%d tasks were stored", len(tasks))
		}
	})
	t.Run("with one", func(t *testing.T) {
		s := newSite(t)
		disk := s.disk("size=2m", 0)
		s.must("run", busybox, "true")
		waitFor(t, "its pod is deleted", 30*time.Second, func() bool { s.must("task", "list"); return len(s.pods()) == 0 })
		free := fill(t, disk)
		s.refused(s.berth("run", busybox, "true"), "disk is full", "free some space", "nothing was lost")
		free()
		if tasks := s.tasks(); len(tasks) != 1 {
			t.Errorf("there are %d tasks", len(tasks))
		}
		if got := s.must("run", busybox, "echo", "again"); got != "again\n" {
			t.Errorf("with room again the output is %q", got)
		}
	})
}

// The outcome of a task is stored once there is room, and its pod stays until
// then.
func TestBadInputOfADiskThatFillsWhileATaskRuns(t *testing.T) {
	s := newSite(t)
	disk := s.disk("size=2m", 0)
	run := s.start("run", busybox, "sh", "-c", "echo begun; sleep 3; echo over; exit 7")
	waitFor(t, "it runs", 60*time.Second, func() bool { return strings.Contains(run.stdout.String(), "begun") })
	free := fill(t, disk)
	waitFor(t, "the program has ended", 60*time.Second, func() bool {
		pods := s.pods()
		return len(pods) == 1 && pods[0].Status.Phase == "Failed"
	})
	waitFor(t, "it says that the disk is full", 30*time.Second, func() bool { return strings.Contains(run.stderr.String(), "full") })
	if pods := s.pods(); len(pods) != 1 || pods[0].DeletionTimestamp != nil {
		t.Errorf("the pod was deleted before its outcome was stored")
	}
	free()
	if r := run.wait(within(t, 90*time.Second)); r.code != 7 || !strings.HasPrefix(r.stdout, "begun\n") {
		t.Errorf("exit %d, output %q\n%s", r.code, r.stdout, r.stderr)
	}
	task := s.tasks()[0]
	if task.State != berth.StateFailed || task.ExitCode == nil || *task.ExitCode != 7 {
		t.Errorf("the task is %s, exit code %v", task.State, task.ExitCode)
	}
	if got := s.must("task", "logs", task.ID); got != "begun\nover\n" {
		t.Errorf("the log is %q", got)
	}
}
