package berth

import (
	"testing"
	"time"
)

func TestWhoMayDoWhat(t *testing.T) {
	ann := Caller{Name: "ann", Role: RoleWrite}
	reader := Caller{Name: "ann", Role: RoleRead}
	scoped := Caller{Name: "ann", Role: RoleWrite, Infrastructures: []string{"site-a"}}
	admin := Caller{Name: "root", Role: RoleAdmin}
	siteAdmin := Caller{Name: "root", Role: RoleAdmin, Infrastructures: []string{"site-a"}}
	nobody := Caller{Name: "ann", Role: "guest"}
	own := &Task{Owner: "ann", Infrastructure: "site-a"}
	ownElsewhere := &Task{Owner: "ann", Infrastructure: "site-b"}
	others := &Task{Owner: "bob", Infrastructure: "site-a"}

	tests := []struct {
		what string
		got  bool
		want bool
	}{
		{"an owner sees their task", ann.MaySee(own), true},
		{"an owner cancels their task", ann.MayCancel(own), true},
		{"nobody sees another's task", ann.MaySee(others), false},
		{"nobody cancels another's task", ann.MayCancel(others), false},
		{"a reader sees the owner's task", reader.MaySee(own), true},
		{"a reader cancels nothing", reader.MayCancel(own), false},
		{"a reader submits nothing", reader.MaySubmit("site-a"), false},
		{"a scope shows what is in it", scoped.MaySee(own), true},
		{"a scope hides what is outside", scoped.MaySee(ownElsewhere), false},
		{"a scope allows what is in it", scoped.MaySubmit("site-a"), true},
		{"a scope forbids what is outside", scoped.MaySubmit("site-b"), false},
		{"an admin sees all", admin.MaySee(others), true},
		{"an admin administers", admin.MayAdminister(), true},
		{"a scoped admin sees all in the scope", siteAdmin.MaySee(others), true},
		{"a scoped admin sees nothing outside", siteAdmin.MaySee(ownElsewhere), false},
		{"a scoped admin doesn't administer", siteAdmin.MayAdminister(), false},
		{"a writer doesn't administer", ann.MayAdminister(), false},
		{"an admin uses any secret", admin.MayUseSecret("site-a"), true},
		{"a writer uses their own secret", ann.MayUseSecret("ann/password"), true},
		{"a writer uses no cluster's secret", ann.MayUseSecret("site-a"), false},
		{"a writer uses no other's secret", ann.MayUseSecret("anna/password"), false},
		{"a scoped admin uses no cluster's secret", siteAdmin.MayUseSecret("site-b"), false},
		{"an unknown role sees nothing", nobody.MaySee(own), false},
		{"an unknown role submits nothing", nobody.MaySubmit("site-a"), false},
	}
	for _, test := range tests {
		if test.got != test.want {
			t.Errorf("%s: %t", test.what, test.got)
		}
	}
	if c, ok := CallerFrom(WithCaller(t.Context(), ann)); !ok || c.Name != "ann" {
		t.Errorf("from a context: %+v, %t", c, ok)
	}
	if _, ok := CallerFrom(t.Context()); ok {
		t.Error("a context without a caller has one")
	}
}

func TestATokenRequestIsChecked(t *testing.T) {
	good := TokenRequest{Name: "ann@site-a", Role: RoleWrite, Infrastructures: []string{"site-a"}, TTL: time.Hour}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]TokenRequest{
		"no name":      {Role: RoleRead},
		"a slash":      {Name: "a/b", Role: RoleRead},
		"no role":      {Name: "a"},
		"a wrong role": {Name: "a", Role: "owner"},
		"a wrong site": {Name: "a", Role: RoleRead, Infrastructures: []string{"Not A Name"}},
		"too short":    {Name: "a", Role: RoleRead, TTL: time.Millisecond},
		"negative":     {Name: "a", Role: RoleRead, TTL: -time.Hour},
	} {
		if err := r.Validate(); CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
