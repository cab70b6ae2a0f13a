package config

import (
	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// pod reads what every pod of an infrastructure gets.
func pod(n *yamlstrict.Node) berth.PodConfig {
	fields := n.Fields("node_selector", "tolerations", "labels", "service_account", "priority_class", "image_pull_secrets", "runtime_class", "security")
	p := berth.PodConfig{
		NodeSelector:   labelMap(fields.Get("node_selector"), false),
		Labels:         labelMap(fields.Get("labels"), true),
		ServiceAccount: dnsName(fields.Get("service_account"), dnsSubdomain),
		PriorityClass:  dnsName(fields.Get("priority_class"), dnsSubdomain),
		RuntimeClass:   dnsName(fields.Get("runtime_class"), dnsSubdomain),
	}
	for _, item := range fields.Get("image_pull_secrets").Items() {
		p.ImagePullSecrets = append(p.ImagePullSecrets, dnsName(item, dnsSubdomain))
	}
	for _, item := range fields.Get("tolerations").Items() {
		p.Tolerations = append(p.Tolerations, toleration(item))
	}
	if security := fields.Get("security"); security != nil {
		p.Security = security.OneOf("restricted", "baseline", "privileged")
	}
	return p
}

// labelMap reads labels: those of pods, or those of nodes to be selected.
func labelMap(n *yamlstrict.Node, ours bool) map[string]string {
	labels := n.TextMap()
	for _, entry := range n.Entries() {
		err := berth.ValidateLabel(entry.Key, "")
		if err != nil && (ours || berth.ValidateLabel(entry.Key+"x", "") != nil) {
			entry.FailKeyf("%v", err)
		} else if berth.ValidateLabel("value", labels[entry.Key]) != nil {
			entry.Rejectf("a label's value is at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
		}
	}
	return labels
}

// toleration reads one with Kubernetes' own field names; snake_case, as all
// else here is, will do too.
func toleration(n *yamlstrict.Node) berth.Toleration {
	fields := n.Fields("key", "operator", "value", "effect", "tolerationSeconds", "toleration_seconds")
	t := berth.Toleration{Key: nonEmpty(fields.Get("key"))}
	if value := fields.Get("value"); value != nil {
		t.Value = value.Scalar()
	}
	if operator := fields.Get("operator"); operator != nil {
		t.Operator = operator.OneOf("Equal", "Exists")
	}
	if effect := fields.Get("effect"); effect != nil {
		t.Effect = effect.OneOf("NoSchedule", "PreferNoSchedule", "NoExecute")
	}
	seconds := fields.Get("tolerationSeconds")
	if snake := fields.Get("toleration_seconds"); snake != nil {
		if seconds != nil {
			snake.FailKeyf("tolerationSeconds is there as well; keep one")
		}
		seconds = snake
	}
	if seconds != nil {
		number := seconds.Int(0, 1<<31)
		t.Seconds = &number
	}
	switch {
	case t.Key == "" && t.Operator != "Exists":
		n.FailKeyf("key is missing: name the taint, or write operator: Exists to tolerate all")
	case t.Operator == "Exists" && t.Value != "":
		fields.Get("value").FailKeyf("operator Exists takes no value")
	case t.Seconds != nil && t.Effect != "NoExecute":
		seconds.FailKeyf("needs effect: NoExecute")
	}
	return t
}
