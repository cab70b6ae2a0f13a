package config

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/berth-run/berth"
)

// noEnv is an environment without variables.
func noEnv(string) (string, bool) { return "", false }

// Each file of testdata/invalid holds one mistake, and in its first line what
// the error must say after "infra.yml:".
func TestInvalidFilesSayWhereAndWhat(t *testing.T) {
	fixtures, err := filepath.Glob("testdata/invalid/*.yml")
	if err != nil || len(fixtures) < 50 {
		t.Fatalf("%d fixtures, %v", len(fixtures), err)
	}
	for _, fixture := range fixtures {
		t.Run(strings.TrimSuffix(filepath.Base(fixture), ".yml"), func(t *testing.T) {
			data, err := os.ReadFile(fixture)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(data), "\n")
			want, ok := strings.CutPrefix(first, "# want ")
			if !ok {
				t.Fatal("the fixture does not say what is wanted")
			}
			_, err = Parse("infra.yml", data, noEnv)
			if err == nil {
				t.Fatal("accepted")
			}
			if berth.CodeOf(err) != berth.CodeInvalid || !strings.HasPrefix(err.Error(), "infra.yml:") {
				t.Errorf("code %s: %v", berth.CodeOf(err), err)
			}
			if want[0] >= '0' && want[0] <= '9' {
				want = "infra.yml:" + want
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("\n got %s\nwant %s", err, want)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q tells a secret", err)
			}
		})
	}
}

func TestTheWholeOfIt(t *testing.T) {
	data, err := os.ReadFile("testdata/whole.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "infra.yml")
	file, err := Parse(path, data, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	seconds := int64(60)
	want := &File{Path: path, Default: "second", Logs: berth.LogLimits{MaxAge: 720 * time.Hour, MaxSize: 20 << 30}, Infrastructures: []berth.InfrastructureConfig{
		{
			Name: "example-infrastructure", Kind: "kube", Address: "mycluster.com:6443", CallbackTo: "http://control-plane.com:50052",
			Namespace: "brane", Registry: "control-plane.com:5000",
			Credentials: berth.Credentials{Mechanism: "config", Path: filepath.Join(dir, "kubernetes-config.yml"), Context: "optional-name"},
			Limits:      berth.Limits{MaxPods: 100, MaxCreatesPerSecond: 2.5},
			Defaults:    berth.Defaults{CPU: "2", Memory: "512Mi"},
			Pod: berth.PodConfig{
				NodeSelector: map[string]string{"kubernetes.io/arch": "amd64", "gpu": "true"},
				Tolerations: []berth.Toleration{
					{Key: "dedicated", Operator: "Equal", Value: "batch", Effect: "NoSchedule"},
					{Key: "away", Operator: "Exists", Effect: "NoExecute", Seconds: &seconds},
				},
				Labels: map[string]string{"team": "text"}, ServiceAccount: "runner", PriorityClass: "low",
				ImagePullSecrets: []string{"pull"}, RuntimeClass: "gvisor", Security: "restricted",
			},
			Grace: berth.Grace{Start: time.Hour, Pull: 0, Config: 60 * time.Second},
		},
		{
			Name: "second", Kind: "kube", CallbackTo: "https://control-plane.com:50052",
			Credentials: berth.Credentials{Mechanism: "in-cluster"},
			Limits:      berth.DefaultLimits, Grace: berth.DefaultGrace,
		},
	}}
	if diff := cmp.Diff(want, file, cmpopts.IgnoreUnexported(File{}), cmpopts.IgnoreFields(File{}, "Warnings")); diff != "" {
		t.Error(diff)
	}
	if len(file.Warnings) != 1 || !strings.Contains(file.Warnings[0], "callback_to") || !strings.Contains(file.Warnings[0], "http://") {
		t.Errorf("warnings %q", file.Warnings)
	}
}

func TestLimitsOfLogs(t *testing.T) {
	const entry = "infrastructures: {a: {kind: kube, credentials: {mechanism: config, path: ./k}}}\n"
	for text, want := range map[string]berth.LogLimits{
		"":                            berth.DefaultLogLimits,
		"logs: {}\n":                  berth.DefaultLogLimits,
		"logs: {max_size: none}\n":    {},
		"logs: {max_age: none}\n":     berth.DefaultLogLimits,
		"logs: {max_age: 1h30m}\n":    {MaxAge: 90 * time.Minute, MaxSize: berth.DefaultLogLimits.MaxSize},
		"logs: {max_size: 500M}\n":    {MaxSize: 500e6},
		"logs: {max_size: 1048576}\n": {MaxSize: 1 << 20},
	} {
		file, err := Parse("infra.yml", []byte(text+entry), noEnv)
		if err != nil || file.Logs != want {
			t.Errorf("%q: %+v, %v; want %+v", text, file, err, want)
		}
	}
}

// A file of Brane works unchanged but for what isn't there yet.
func TestLocationsIsAnAlias(t *testing.T) {
	file, err := Parse("infra.yml", []byte("locations:\n  a: {kind: kube, credentials: {mechanism: config, path: ./k}}\n"), noEnv)
	if err != nil || len(file.Infrastructures) != 1 {
		t.Errorf("%v, %v", file, err)
	}
}

func TestServiceAccountAndKubeconfigsInTheFile(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte("kind: Config\n"))
	file, err := Parse("/etc/berth/infra.yml", []byte(`infrastructures:
  text:
    kind: kube
    credentials:
      mechanism: config
      content: |
        kind: Config
  base64:
    kind: kube
    credentials: {mechanism: config, file: `+encoded+`}
  prescott:
    kind: kube
    namespace: prescott
    credentials: {mechanism: service-account, host: "example.com:6443", token_file: token, ca_file: /ca.crt}
`), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got := file.Infrastructures[i].Credentials.Content.Reveal(); got != "kind: Config\n" {
			t.Errorf("content is %q", got)
		}
	}
	got := file.Infrastructures[2].Credentials
	want := berth.Credentials{Mechanism: "service-account", Host: "https://example.com:6443", TokenFile: "/etc/berth/token", CAFile: "/ca.crt"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReferences(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("name", "from-file\n", 0o644)
	write("secrets.yml", "token: from-secrets\n", 0o600)
	env := func(name string) (string, bool) {
		return map[string]string{"N": "7", "W": "work", "EMPTY": "", "B": "true"}[name], name != "UNSET"
	}
	for text, want := range map[string]string{
		"${env:W}":              "work",
		"a-${env:W}-${env:N}-b": "a-work-7-b",
		"${file:name}":          "from-file",
		"${secret:token}":       "from-secrets",
		"s$token":               "from-secrets",
		"as$token":              "as$token",
		"$${env:W}":             "${env:W}",
		"$${env:W}${env:N}":     "${env:W}7",
		"$$${env:W}":            "$${env:W}",
		"cost: 5$":              "cost: 5$",
		"${env:EMPTY}":          "",
	} {
		r := &references{dir: dir, env: env}
		got, _, err := r.expand(text)
		if err != nil || got != want {
			t.Errorf("expand(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	file, err := Parse(filepath.Join(dir, "infra.yml"), []byte(`infrastructures:
  a:
    kind: kube
    insecure_skip_tls_verify: ${env:B}
    limits: {max_pods: "${env:N}"}
    credentials: {mechanism: config, path: "./${env:W}/k"}
`), env)
	if err != nil {
		t.Fatal(err)
	}
	a := file.Infrastructures[0]
	if a.Limits.MaxPods != 7 || !a.InsecureSkipTLSVerify || a.Credentials.Path != filepath.Join(dir, "work", "k") {
		t.Errorf("got %+v", a)
	}

	if err := os.Chmod(filepath.Join(dir, "secrets.yml"), 0o640); err != nil {
		t.Fatal(err)
	}
	_, _, err = (&references{dir: dir, env: env}).expand("${secret:token}")
	if err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("secrets.yml that others may read: %v", err)
	}
}

// What a reference resolves to is never shown, also when it is wrong.
func TestResolvedValuesAreNotTold(t *testing.T) {
	env := func(string) (string, bool) { return "s3cret value@", true }
	for _, line := range []string{
		"namespace: ${env:X}", "address: ${env:X}", "callback_to: ${env:X}", "registry: ${env:X}", `limits: {max_pods: "${env:X}"}`,
		`limits: {max_creates_per_second: "${env:X}"}`, `limits: {fair_share: "${env:X}"}`, `limits: {fair_share: "label:${env:X}"}`, `defaults: {cpu: "${env:X}"}`, `defaults: {memory: "${env:X}"}`, `grace: {pull_grace: "${env:X}"}`,
		`pod: {security: "${env:X}"}`, `pod: {labels: {a: "${env:X}"}}`, `pod: {tolerations: [{key: a, effect: "${env:X}"}]}`, "insecure_skip_tls_verify: ${env:X}",
		`pod: {node_selector: {a: "${env:X}"}}`, `pod: {service_account: "${env:X}"}`, `pod: {image_pull_secrets: ["${env:X}"]}`,
	} {
		_, err := Parse("infra.yml", []byte("infrastructures:\n  a:\n    kind: kube\n    credentials: {mechanism: in-cluster}\n    "+line+"\n"), env)
		if err == nil {
			t.Errorf("%s: accepted", line)
		} else if strings.Contains(err.Error(), "s3cret") || !strings.HasPrefix(err.Error(), "infra.yml:5:") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestLoadWithoutAFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "infra.yml"))
	if berth.CodeOf(err) != berth.CodeNotFound || !strings.Contains(err.Error(), "berth infra add NAME --kubeconfig FILE") {
		t.Errorf("got %v", err)
	}
	_, err = Load(t.TempDir())
	if berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("a folder: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	fixtures, _ := filepath.Glob("testdata/invalid/*.yml")
	for _, fixture := range append(fixtures, "testdata/whole.yml") {
		data, err := os.ReadFile(fixture)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	const secret = "CanaryThatNobodyMaySee"
	env := func(string) (string, bool) { return secret, true }
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := Parse(filepath.Join(dir, "infra.yml"), data, env)
		if err == nil {
			return
		}
		var e *berth.Error
		if !errors.As(err, &e) || e.Code != berth.CodeInvalid || !strings.Contains(err.Error(), "infra.yml:") {
			t.Errorf("%T %v", err, err)
		}
		if strings.Contains(err.Error(), secret) && !strings.Contains(string(data), secret) {
			t.Errorf("the error tells what a reference resolved to: %v", err)
		}
	})
}
