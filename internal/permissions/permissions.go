// Package permissions is the table of what Berth may do in a namespace that it
// was given: every verb, what it is for, and the profile that grants it. The
// Role of create-kubeconfig is made from it, infra check compares it with what
// is granted, and a refusal is explained by it. It is data: it asks no cluster
// anything.
package permissions

import (
	"fmt"
	"slices"
	"strings"
)

// Profile is a set of permissions that is granted together.
type Profile string

// The profiles of create-kubeconfig.
const (
	Tasks     Profile = "tasks"     // run tasks
	Functions Profile = "functions" // give functions secret inputs, and nodes the credentials of a registry
	Clusters  Profile = "clusters"  // run compute clusters
	Metrics   Profile = "metrics"   // read what pods use
	Proxy     Profile = "proxy"     // send what tasks send through a proxy
	Data      Profile = "data"      // reach the files that tasks share
)

// Renewal is what a token that expires is renewed by. Nobody chooses it: it
// goes with such a token.
const Renewal Profile = "renewal"

// Account is the service account that create-kubeconfig makes; its Role and
// its RoleBinding have the same name.
const Account = "berth"

// Profiles are all profiles that can be chosen; the first is granted always.
var Profiles = []Profile{Tasks, Functions, Clusters, Metrics, Proxy, Data}

// Permission is the right to use one verb on one resource in the namespace.
type Permission struct {
	Profile     Profile
	Verb        string
	Group       string // "" is the core group
	Resource    string
	Subresource string
	OnlyItself  bool   // for one object by its name: the namespace itself, or the account that asks
	For         string // what Berth does with it
	Required    bool   // its profile doesn't work without it
}

// All is every permission that Berth can use, exactly.
var All = []Permission{
	{Profile: Tasks, Verb: "create", Resource: "pods", Required: true, For: "to run tasks: an attempt is a pod"},
	{Profile: Tasks, Verb: "get", Resource: "pods", Required: true, For: "to find out whether a create that timed out was done"},
	{Profile: Tasks, Verb: "list", Resource: "pods", Required: true, For: "to see how tasks stand after a start or a lost connection"},
	{Profile: Tasks, Verb: "watch", Resource: "pods", Required: true, For: "to see at once that a task started or ended"},
	{Profile: Tasks, Verb: "delete", Resource: "pods", Required: true, For: "to cancel tasks and to clean up after them"},
	{Profile: Tasks, Verb: "get", Resource: "pods", Subresource: "log", Required: true, For: "to follow and keep the output of tasks"},
	{Profile: Tasks, Verb: "list", Resource: "events", For: "to say why a pod does not start"},
	{Profile: Tasks, Verb: "watch", Resource: "events", For: "to say why a pod does not start, while it waits"},
	{Profile: Tasks, Verb: "list", Resource: "resourcequotas", For: "to say which quota is exhausted, and by how much"},
	{Profile: Tasks, Verb: "watch", Resource: "resourcequotas", For: "to go on as soon as a quota has room"},
	{Profile: Tasks, Verb: "list", Resource: "limitranges", For: "to say which limit of the namespace a task breaks, and by how much"},
	{Profile: Tasks, Verb: "get", Resource: "namespaces", OnlyItself: true, For: "to notice that another namespace answers under the same name"},

	{Profile: Functions, Verb: "create", Resource: "secrets", Required: true, For: "to give functions their secret inputs, and nodes the credentials of a registry"},
	{Profile: Functions, Verb: "update", Resource: "secrets", Required: true, For: "to renew the credentials of a registry"},

	{Profile: Data, Verb: "create", Resource: "pods", Subresource: "portforward", Required: true, For: "to reach the files that tasks share"},
	{Profile: Data, Verb: "get", Resource: "pods", Subresource: "portforward", For: "the same by a websocket, where a proxy on the way to the API server does not know SPDY"},

	{Profile: Clusters, Verb: "create", Resource: "secrets", Required: true, For: "to give a compute cluster its TLS keys"},
	{Profile: Clusters, Verb: "get", Resource: "secrets", Required: true, For: "to find a compute cluster's TLS keys again"},
	{Profile: Clusters, Verb: "delete", Resource: "secrets", Required: true, For: "to clean up after a compute cluster"},
	{Profile: Clusters, Verb: "create", Resource: "pods", Subresource: "portforward", Required: true, For: "to reach a compute cluster's head"},
	{Profile: Clusters, Verb: "get", Resource: "pods", Subresource: "portforward", For: "the same by a websocket, where a proxy on the way to the API server does not know SPDY"},

	{Profile: Proxy, Verb: "create", Resource: "secrets", Required: true, For: "to give a task's proxy sidecar the login of the proxy"},

	{Profile: Renewal, Verb: "create", Resource: "serviceaccounts", Subresource: "token", OnlyItself: true, Required: true, For: "to renew its own token before it expires"},

	{Profile: Metrics, Verb: "list", Group: "metrics.k8s.io", Resource: "pods", Required: true, For: "to measure what tasks use"},
}

// Of returns the permissions of profiles, in the order of the table.
func Of(profiles ...Profile) []Permission {
	var of []Permission
	for _, p := range All {
		if slices.Contains(profiles, p.Profile) {
			of = append(of, p)
		}
	}
	return of
}

// FindOf is Find, where a profile is known that needs it: several may grant the
// same.
func FindOf(profile Profile, verb, group, resource, subresource string) (Permission, bool) {
	first, ok := Find(verb, group, resource, subresource)
	for _, p := range Of(profile) {
		if ok && p.String() == first.String() {
			return p, true
		}
	}
	return first, ok
}

// ObjectName is the one object that a permission is for, of a namespace and an
// account; empty for one on all objects of its kind.
func (p Permission) ObjectName(namespace, account string) string {
	switch {
	case !p.OnlyItself:
		return ""
	case p.Resource == "namespaces":
		return namespace
	}
	return account
}

// Find returns the permission for a verb on a resource, if Berth knows it.
func Find(verb, group, resource, subresource string) (Permission, bool) {
	i := slices.IndexFunc(All, func(p Permission) bool {
		return p.Verb == verb && p.Group == group && p.Resource == resource && p.Subresource == subresource
	})
	if i < 0 {
		return Permission{}, false
	}
	return All[i], true
}

// Only reports whether no other profile grants the same: to have it tells that
// the profile was granted.
func Only(p Permission) bool {
	return !slices.ContainsFunc(All, func(other Permission) bool { return other.Profile != p.Profile && other.String() == p.String() })
}

// Object names what the permission is on, as a Role writes it: "pods/log".
func (p Permission) Object() string {
	object := p.Resource
	if p.Group != "" {
		object += "." + p.Group
	}
	if p.Subresource != "" {
		object += "/" + p.Subresource
	}
	return object
}

func (p Permission) String() string { return p.Verb + " " + p.Object() }

// ParseProfiles reads names of profiles, each of which may be several with
// commas between them. The profile tasks is always part of the result.
func ParseProfiles(names []string) ([]Profile, error) {
	wanted := map[Profile]bool{Tasks: true}
	for _, list := range names {
		for name := range strings.SplitSeq(list, ",") {
			profile := Profile(strings.TrimSpace(name))
			if !slices.Contains(Profiles, profile) {
				return nil, fmt.Errorf("profile %q: there are tasks (always granted), functions, clusters, metrics, proxy and data", string(profile))
			}
			wanted[profile] = true
		}
	}
	var profiles []Profile
	for _, p := range Profiles {
		if wanted[p] {
			profiles = append(profiles, p)
		}
	}
	return profiles, nil
}
