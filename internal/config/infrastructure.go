package config

import (
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

var (
	dnsLabel     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
)

var known = []string{
	"kind", "address", "callback_to", "namespace", "registry", "credentials", "limits", "defaults", "pod", "grace", "insecure_skip_tls_verify", "agent_image", "tls", "labels", "mount_dfs", "proxy_address", "proxy_bypass",
}

func (r *reader) infrastructure(entry yamlstrict.Entry) berth.InfrastructureConfig {
	infra := berth.InfrastructureConfig{Name: entry.Key, Limits: berth.DefaultLimits, Grace: berth.DefaultGrace}
	if infra.Kind = kindOf(entry); infra.Kind == "" {
		return infra
	}
	fields := entry.Fields(known...)
	infra.Labels = labelMap(fields.Get("labels"), true)
	infra.CallbackTo = r.callback(fields.Get("callback_to"))
	infra.Registry = nonEmpty(fields.Get("registry"))
	rejectPassword(fields.Get("registry"), infra.Registry)
	infra.InsecureSkipTLSVerify = fields.Get("insecure_skip_tls_verify").Bool()
	if infra.InsecureSkipTLSVerify {
		r.warn(fields.Get("insecure_skip_tls_verify").Warningf("anybody on the way to this cluster can read and change everything, the credentials included"))
	}
	limits(fields.Get("limits"), &infra.Limits)
	defaults(fields.Get("defaults"), &infra.Defaults)
	grace(fields.Get("grace"), &infra.Grace)
	switch infra.Kind {
	case berth.KindDocker:
		r.docker(fields, &infra)
	default:
		r.kube(fields, &infra)
	}
	return infra
}

// kube reads what an entry of kind kube has beside what all kinds have.
func (r *reader) kube(fields *yamlstrict.Fields, infra *berth.InfrastructureConfig) {
	if fields.Has("tls") {
		fields.Get("tls").FailKeyf("belongs to kind docker; kind kube has it in its credentials")
		return
	}
	infra.Address = address(fields.Get("address"))
	infra.AgentImage = imageName(fields.Get("agent_image"))
	infra.Namespace = dnsName(fields.Get("namespace"), dnsLabel)
	infra.Credentials = r.credentials(fields.Require("credentials", "say how to log in, such as credentials: {mechanism: config, path: ./kubeconfig}"), *infra)
	infra.Pod = pod(fields.Get("pod"))
	infra.DFS = r.dfs(fields.Get("mount_dfs"))
	infra.Proxy = r.proxy(fields.Get("proxy_address"), fields.Get("proxy_bypass"))
}

// kindOf looks at the kind before all else: what other fields mean depends on it.
func kindOf(entry yamlstrict.Entry) string {
	for _, field := range entry.Entries() {
		if field.Key != "kind" {
			continue
		}
		switch kind := field.Text(); kind {
		case berth.KindKube, berth.KindDocker:
			return kind
		case "k8s", "kubernetes":
			field.Rejectf("write kind: kube")
		default:
			field.Rejectf("the kinds are kube and docker")
		}
		return ""
	}
	entry.Fields(known...) // a typo of it is told as such
	entry.FailKeyf("kind is missing: write kind: kube, or kind: docker")
	return ""
}

// address is host:port or a URL.
func address(n *yamlstrict.Node) string {
	text := nonEmpty(n)
	if text == "" {
		return ""
	}
	full := text
	if !strings.Contains(full, "://") {
		full = "https://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Hostname() == "" || strings.ContainsAny(text, " \t\n") {
		rejectPassword(n, text)
		n.Rejectf("want HOST:PORT, or a URL")
		return ""
	}
	rejectPassword(n, text)
	return text
}

// callback is where pods reach the control plane; without a scheme it is https.
func (r *reader) callback(n *yamlstrict.Node) string {
	text := address(n)
	switch {
	case text == "":
		return ""
	case !strings.Contains(text, "://"):
		return "https://" + text
	case strings.HasPrefix(text, "https://"):
	case strings.HasPrefix(text, "http://"):
		r.warn(n.Warningf("callbacks go unencrypted over http://; their tokens are good for one attempt only"))
	default:
		n.Rejectf("want HOST:PORT, https:// or http://")
	}
	return text
}

func imageName(n *yamlstrict.Node) string {
	text := nonEmpty(n)
	if text != "" {
		if err := berth.ValidateImage(text); err != nil {
			n.Failf("%v", err)
		}
	}
	return text
}

// rejectPassword refuses credentials in a URL that needs none. They are not shown.
func rejectPassword(n *yamlstrict.Node, text string) {
	if strings.Contains(text, "@") {
		n.Failf("must not hold a user or password (before the @)")
	}
}

func limits(n *yamlstrict.Node, to *berth.Limits) {
	fields := n.Fields("max_pods", "max_creates_per_second", "fair_share")
	if share := fields.Get("fair_share"); share != nil {
		by := share.Scalar()
		if label, ok := strings.CutPrefix(by, "label:"); ok {
			if err := berth.ValidateLabel(label, ""); err != nil {
				share.Rejectf("write label: and the key of a label")
			}
			by = label
		} else if by != berth.FairShareOwner && by != berth.FairShareNone {
			share.Rejectf("write owner, none, or label:KEY")
		}
		to.FairShare = by
	}
	if fields.Has("max_pods") {
		to.MaxPods = int(fields.Get("max_pods").Int(1, 100_000))
	}
	if fields.Has("max_creates_per_second") {
		to.MaxCreatesPerSecond = fields.Get("max_creates_per_second").Float(100_000)
	}
}

func defaults(n *yamlstrict.Node, to *berth.Defaults) {
	fields := n.Fields("cpu", "memory")
	if cpu := fields.Get("cpu"); cpu != nil {
		to.CPU = berth.Quantity(cpu.Scalar())
		if _, err := to.CPU.MilliCPU(); err != nil {
			cpu.Rejectf("write CPUs such as 2, 0.5 or 500m")
		}
	}
	if memory := fields.Get("memory"); memory != nil {
		to.Memory = berth.Quantity(memory.Scalar())
		if _, err := to.Memory.Bytes(); err != nil {
			memory.Rejectf("write bytes with a unit such as 512Mi or 2Gi")
		}
	}
}

func grace(n *yamlstrict.Node, to *berth.Grace) {
	fields := n.Fields("start_timeout", "pull_grace", "config_grace")
	set := func(name string, to *time.Duration, least time.Duration) {
		if fields.Has(name) {
			*to = fields.Get(name).Duration(least, berth.MaxGrace)
		}
	}
	set("start_timeout", &to.Start, time.Second)
	set("pull_grace", &to.Pull, 0)
	set("config_grace", &to.Config, 0)
}

// nonEmpty is a string that must say something where it is written.
func nonEmpty(n *yamlstrict.Node) string {
	text := n.Text()
	if n.Present() && strings.TrimSpace(text) == "" {
		n.Failf("is empty; leave the field out or give it a value")
	}
	return text
}

func dnsName(n *yamlstrict.Node, pattern *regexp.Regexp) string {
	text := nonEmpty(n)
	if text != "" && !pattern.MatchString(text) {
		n.Rejectf("a name in Kubernetes is lower-case letters, digits and '-', beginning and ending with a letter or digit")
	}
	return text
}
