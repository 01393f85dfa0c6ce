package main

import "testing"

func TestARoleThatAddsNothingIsTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		byDefault, role string
		allow           []string
		want            bool
	}{
		{"", "reader", nil, false},
		{"admin", "reader", nil, true},
		{"admin", "admin", nil, true},
		{"admin", "", []string{"emit:user.x"}, true},
		{"reader", "operator", nil, false},
		{"reader", "reader", nil, true},
		{"reader", "reader", []string{"emit:user.x"}, false},
		{"operator", "reader", []string{"emit:user.x"}, true},
		{"of a newer version", "reader", nil, false},
	} {
		v := grantSetView{DefaultRole: tt.byDefault, Role: tt.role, Allow: tt.allow}
		if got := v.addsNothing(); got != tt.want {
			t.Errorf("%q given %q %v: adds nothing %t; want %t", tt.byDefault, tt.role, tt.allow, got, tt.want)
		}
	}
}
