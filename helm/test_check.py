"""Tests of helm/check: every check must fail on manifests that are invalid in one way. `helm/check --self-test` runs them."""

import copy
import importlib.machinery
import importlib.util
import itertools
import shutil
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

sys.dont_write_bytecode = True
import manifests
import matrix
import network
import pods
from references import reference_problems

loader = importlib.machinery.SourceFileLoader("check", str(Path(__file__).with_name("check")))
check = importlib.util.module_from_spec(importlib.util.spec_from_loader("check", loader))
loader.exec_module(check)

GATEWAY = {"entry.kind": "gateway", "redis.exporter.enabled": True, "mongodb.exporter.enabled": True, "kafka.jmxExporter.enabled": True}
MONITORED = {"podMonitor.enabled": True, "grafana.service.type": "LoadBalancer", **matrix.OPTIONS["scaling"]["KEDA"]}


def rendered(chosen):
    row = matrix.Row("", chosen)
    assert matrix.render(row) == []
    return row


ROWS = [rendered({}), rendered(GATEWAY), rendered(GATEWAY | MONITORED), rendered({**matrix.OPTIONS["kafka"]["external by Secret"]})]


def one_of(objects, kind, name):
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


def broken(objects, kind, name, *path, to):
    """Returns the objects with one field of one object changed, or removed if `to` is None."""
    whole = one_of(objects, kind, name)
    within = copy.deepcopy(whole)
    objects = [within if one is whole else one for one in objects]
    for key in path[:-1]:
        within = within.setdefault(key, {}) if isinstance(within, dict) else within[key]
    if to is None:
        del within[path[-1]]
    elif isinstance(within, list) and path[-1] == "+":
        within.append(to)
    else:
        within[path[-1]] = to
    return objects


POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)
SECURITY = (*CONTAINER, "securityContext")

# Invalid pods: the path of a field, its value, and a part of the expected message.
BROKEN_PODS = (
    ((*POD, "hostNetwork"), True, "host namespaces"),
    ((*POD, "hostPID"), True, "host namespaces"),
    ((*POD, "hostIPC"), True, "host namespaces"),
    ((*POD, "volumes", "+"), {"name": "host", "hostPath": {"path": "/"}}, "volume types"),
    ((*POD, "securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}], "sysctls"),
    ((*POD, "securityContext", "seccompProfile"), None, "seccomp"),
    ((*POD, "securityContext", "seccompProfile", "type"), "Unconfined", "seccomp"),
    ((*POD, "securityContext", "runAsNonRoot"), None, "running as non-root"),
    ((*POD, "securityContext", "runAsUser"), 0, "non-root user"),
    ((*POD, "securityContext", "windowsOptions"), {"hostProcess": True}, "host process"),
    ((*POD, "securityContext", "appArmorProfile"), {"type": "Unconfined"}, "AppArmor"),
    ((*POD, "securityContext", "seLinuxOptions"), {"type": "spc_t"}, "SELinux"),
    ((*POD, "securityContext", "seLinuxOptions"), {"user": "system_u"}, "SELinux"),
    (("spec", "template", "metadata", "annotations", "container.apparmor.security.beta.kubernetes.io/consumer"), "unconfined", "AppArmor"),
    ((*SECURITY, "privileged"), True, "privileged"),
    ((*SECURITY, "procMount"), "Unmasked", "/proc"),
    ((*SECURITY, "allowPrivilegeEscalation"), None, "privilege escalation"),
    ((*SECURITY, "allowPrivilegeEscalation"), True, "privilege escalation"),
    ((*SECURITY, "capabilities"), None, "capabilities"),
    ((*SECURITY, "capabilities", "drop"), ["NET_RAW"], "capabilities"),
    ((*SECURITY, "capabilities", "add"), ["SYS_ADMIN"], "capabilities"),
    ((*SECURITY, "runAsNonRoot"), False, "running as non-root"),
    ((*SECURITY, "runAsUser"), 0, "non-root user"),
    ((*SECURITY, "seccompProfile"), {"type": "Unconfined"}, "seccomp"),
    ((*SECURITY, "appArmorProfile"), {"type": "Unconfined"}, "AppArmor"),
    ((*SECURITY, "seLinuxOptions"), {"role": "r"}, "SELinux"),
    ((*SECURITY, "windowsOptions"), {"hostProcess": True}, "host process"),
    ((*SECURITY, "readOnlyRootFilesystem"), None, "read-only root"),
    ((*CONTAINER, "ports", 0, "hostPort"), 80, "host ports"),
    ((*CONTAINER, "livenessProbe", "httpGet", "host"), "10.0.0.1", "host probes and hooks"),
    ((*CONTAINER, "readinessProbe"), {"tcpSocket": {"port": 1, "host": "10.0.0.1"}}, "host probes and hooks"),
    ((*CONTAINER, "lifecycle", "postStart"), {"httpGet": {"port": 1, "host": "10.0.0.1"}}, "host probes and hooks"),
    ((*CONTAINER, "resources", "requests", "cpu"), None, "requests no cpu"),
    ((*CONTAINER, "resources", "requests", "memory"), None, "requests no memory"),
    ((*POD, "initContainers"), [{"name": "first", "image": "ovation:0.1.0"}], "container first"),
    ((*POD, "automountServiceAccountToken"), None, "token"),
    ((*POD, "serviceAccountName"), None, "service account"),
    ((*POD, "volumes", "+"), {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}, "volume t contains a token"),
)

ENV = ("Deployment", "ovation-consumer", *CONTAINER, "env")

# Invalid references: the row, the object and the path of a field, its value, and a part of the expected message.
BROKEN_REFERENCES = (
    (0, ("Deployment", "ovation-consumer", *CONTAINER, "env", 0, "value"), "$(MISSING)", "uses $(MISSING)"),
    (0, (*ENV, "+"), {"name": "A", "valueFrom": {"secretKeyRef": {"name": "ovation", "key": "no"}}}, "refers to no in"),
    (0, (*ENV, "+"), {"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}, "Secret x"),
    (0, ("Deployment", "ovation-consumer", *CONTAINER, "envFrom"), [{"secretRef": {"name": "z"}}], "Secret z"),
    (0, (*ENV, "+"), {"name": "A", "value": "http://ovation-missing:1"}, "Service ovation-missing"),
    (0, (*ENV, "+"), {"name": "A", "value": "kafka://ovation-kafka:9099/votes"}, "port 9099"),
    (0, ("Deployment", "ovation-consumer", *CONTAINER, "volumeMounts", "+"), {"name": "gone", "mountPath": "/x"}, "volume gone"),
    (0, ("Deployment", "ovation-consumer", *CONTAINER, "livenessProbe", "httpGet", "port"), "gone", "port gone"),
    (0, ("Deployment", "ovation-consumer", *POD, "volumes", 0, "configMap", "name"), "gone", "ConfigMap gone"),
    (0, ("Deployment", "ovation-consumer", *POD, "serviceAccountName"), "gone", "ServiceAccount gone"),
    (0, ("Deployment", "ovation-consumer", "spec", "selector", "matchLabels", "a"), "b", "does not select its pods"),
    (0, ("Pod", "ovation-test", "spec", "containers", 0, "args", 0), "--rest=http://ovation-rest:8000", "Service ovation-rest,"),
    (0, ("StatefulSet", "ovation-kafka", "spec", "serviceName"), "gone", "Service gone"),
    (0, ("Service", "ovation-redis", "spec", "selector", "a"), "b", "selects no pods"),
    (0, ("Service", "ovation-redis", "spec", "ports", 0, "targetPort"), "gone", "no port gone"),
    (0, ("PodDisruptionBudget", "ovation-consumer", "spec", "selector", "matchLabels", "a"), "b", "selects no pods"),
    (0, ("HorizontalPodAutoscaler", "ovation-consumer", "spec", "scaleTargetRef", "name"), "gone", "scales gone"),
    (2, ("ScaledObject", "ovation-consumer", "spec", "scaleTargetRef", "name"), "gone", "scales gone"),
    (0, ("Ingress", "ovation", "spec", "rules", 0, "http", "paths", 0, "backend", "service", "port", "name"), "gone", "port gone"),
    (1, ("HTTPRoute", "ovation-votes", "spec", "rules", 0, "backendRefs", 0, "port"), 8001, "port 8001"),
    (1, ("HTTPRoute", "ovation-votes", "spec", "parentRefs", 0, "sectionName"), "gone", "no listener gone"),
    (1, ("GRPCRoute", "ovation-grpc", "spec", "parentRefs", 0, "name"), "gone", "Gateway gone"),
    (1, ("BackendTrafficPolicy", "ovation-grpc", "spec", "targetRefs", 0, "name"), "gone", "target gone"),
)

# Schema errors: an unknown field in every kind that the chart contains, and other errors that only a schema detects.
SCHEMA_ERRORS = (
    (0, ("Deployment", "ovation-consumer", *CONTAINER, "readinessprobe"), {}),
    (0, ("Deployment", "ovation-consumer", *CONTAINER, "ports", 0, "containerPort"), "9100"),
    (0, ("StatefulSet", "ovation-kafka", "spec", "template", "spec", "restartpolicy"), "Always"),
    (1, ("Gateway", "ovation", "spec", "listeners", 0, "prot"), "HTTP"),
    (1, ("HTTPRoute", "ovation-votes", "spec", "rules", 0, "backendRefs", 0, "weights"), 1),
    (1, ("HTTPRoute", "ovation-votes", "spec", "rules", 0, "backendRefs", 0, "weight"), "1"),
    (1, ("GRPCRoute", "ovation-grpc", "spec", "rules", 0, "timeouts"), {}),
    (1, ("BackendTrafficPolicy", "ovation-grpc", "spec", "timeout", "http", "requestTimeouts"), "0s"),
    (2, ("ScaledObject", "ovation-consumer", "spec", "triggers", 0, "meta"), {}),
    (2, ("PodMonitor", "ovation", "spec", "podMetricsEndpoints", 0, "intervall"), "5s"),
    (0, ("Service", "ovation-redis", "spec", "port"), 1),
    (0, ("NetworkPolicy", "ovation-redis", "spec", "ingres"), []),
    (0, ("Ingress", "ovation", "spec", "className"), "a"),
    (0, ("HorizontalPodAutoscaler", "ovation-consumer", "spec", "maxReplica"), 1),
    (0, ("PodDisruptionBudget", "ovation-consumer", "spec", "max"), 1),
    (0, ("Secret", "ovation", "datas"), {}),
    (0, ("ConfigMap", "ovation", "datas"), {}),
    (0, ("ServiceAccount", "ovation-consumer", "automount"), True),
    (0, ("Pod", "ovation-test", "spec", "container"), []),
    (0, ("Deployment", "ovation-consumer", "kind"), "Deploiment"),
)


class Checks(unittest.TestCase):
    def assert_reported(self, found, phrase):
        found = list(found)
        self.assertTrue(any(phrase in one for one in found), f"no message contains {phrase}: {found}")

    def test_the_rendered_chart_has_no_problems(self):
        for row in ROWS:
            self.assertEqual(list(check.release_problems(row.objects, row.values)), [])

    def test_every_rule_on_pods_is_enforced(self):
        for path, to, phrase in BROKEN_PODS:
            with self.subTest(path=path, to=to):
                self.assert_reported(pods.pod_problems(broken(ROWS[0].objects, "Deployment", "ovation-consumer", *path, to=to)), phrase)

    def test_an_exception_has_a_reason_and_applies_to_one_rule(self):
        self.assertTrue(all(pods.EXCEPTIONS.values()))
        objects = broken(ROWS[0].objects, "Deployment", "ovation-consumer", *POD, "hostNetwork", to=True)
        objects = broken(objects, "Deployment", "ovation-consumer", *SECURITY, "privileged", to=True)
        with unittest.mock.patch.dict(pods.EXCEPTIONS, {("ovation-consumer", "host namespaces"): "for this test"}):
            self.assertEqual(len(list(pods.pod_problems(objects))), 1)

    def test_pods_of_every_kind_are_checked(self):
        pod = {"containers": [{"name": "a", "image": "b"}]}
        template = {"metadata": {}, "spec": pod}
        for kind, spec in {
            "Pod": pod, "CronJob": {"jobTemplate": {"spec": {"template": template}}},
            **dict.fromkeys(("Job", "DaemonSet", "StatefulSet", "ReplicaSet"), {"template": template}),
        }.items():
            self.assert_reported(pods.pod_problems([{"kind": kind, "metadata": {"name": "x"}, "spec": spec}]), f"{kind} x: container a does not drop ALL")

    def test_a_service_account_has_no_token(self):
        self.assert_reported(pods.pod_problems(broken(ROWS[0].objects, "ServiceAccount", "ovation-consumer", "automountServiceAccountToken", to=True)), "automount")

    def test_images_are_those_of_the_values(self):
        objects, values = ROWS[0].objects, ROWS[0].values
        for kind, name, path in (
            ("Deployment", "ovation-consumer", CONTAINER), ("StatefulSet", "ovation-kafka", CONTAINER), ("Pod", "ovation-test", ("spec", "containers", 0)),
        ):
            self.assert_reported(pods.image_problems(broken(objects, kind, name, *path, "image", to="elsewhere:1"), values), "elsewhere:1")
        mirrored = matrix.merged(values, {"global": {"imageRegistry": "mirror.example.org"}})
        count = sum(len(pods.containers(spec)) for _, _, spec in pods.pod_templates(objects))
        self.assertEqual(len(list(pods.image_problems(objects, mirrored))), count)
        self.assert_reported(pods.image_problems(objects, matrix.merged(values, {"imagePullSecrets": [{"name": "a"}]})), "imagePullSecrets")

    def test_the_number_of_pods_is_set_in_one_place(self):
        scaled = one_of(ROWS[2].objects, "ScaledObject", "ovation-consumer")
        self.assert_reported(pods.scaling_problems([*ROWS[0].objects, scaled]), "scaled by HorizontalPodAutoscaler and by ScaledObject")
        self.assert_reported(pods.scaling_problems(broken(ROWS[0].objects, "Deployment", "ovation-consumer", "spec", "replicas", to=2)), "has replicas")

    def test_a_release_has_a_gateway_or_an_ingress(self):
        self.assert_reported(check.release_problems([*ROWS[1].objects, one_of(ROWS[0].objects, "Ingress", "ovation")], ROWS[1].values), "both a Gateway and an Ingress")

    def test_every_reference_is_checked(self):
        for row, path, to, phrase in BROKEN_REFERENCES:
            with self.subTest(path=path, to=to):
                self.assert_reported(reference_problems(broken(ROWS[row].objects, *path, to=to)), phrase)

    def test_every_kind_is_checked_against_every_version(self):
        documents = {}
        for number, (row, path, to) in enumerate(SCHEMA_ERRORS):
            one = one_of(broken(ROWS[row].objects, *path, to=to), path[0] if path[-1] != "kind" else to, path[1])
            documents[f"error {number}"] = manifests.dump(one)
        found = list(check.schema_errors(documents))
        for number, error in enumerate(SCHEMA_ERRORS):
            for version in ("1.35", "1.36", "1.37"):
                self.assertTrue(any(f"Kubernetes {version}: error {number}:" in one for one in found), f"{version} accepts {error}")
        self.assertEqual(list(check.schema_errors({"a": manifests.dump(ROWS[0].objects[0])})), [])


class Connections(unittest.TestCase):
    """Every rule of every policy is required, and a wider rule is detected."""

    def problems(self, objects, row):
        return list(network.connection_problems(objects, row.values))

    def rules(self, row):
        for one in row.objects:
            if one["kind"] == "NetworkPolicy":
                for direction, peers in (("ingress", "from"), ("egress", "to")):
                    for number, rule in enumerate(one["spec"].get(direction) or []):
                        yield one["metadata"]["name"], direction, number, peers, rule

    def test_no_rule_can_be_left_out(self):
        for row in ROWS:
            for name, direction, number, _, _ in self.rules(row):
                found = self.problems(broken(row.objects, "NetworkPolicy", name, "spec", direction, number, to=None), row)
                self.assertTrue(any("cannot connect" in one for one in found), f"{name} does not need {direction} {number}")

    def test_no_port_can_be_left_out(self):
        for row in ROWS:
            for name, direction, number, _, rule in self.rules(row):
                for port in range(len(rule["ports"])):
                    if len(rule["ports"]) > 1:
                        found = self.problems(broken(row.objects, "NetworkPolicy", name, "spec", direction, number, "ports", port, to=None), row)
                        self.assertTrue(any("cannot connect" in one for one in found), f"{name} does not need port {port} of {direction} {number}")

    def test_no_policy_can_be_open(self):
        for row in ROWS[:2]:
            for one in row.objects:
                if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] != "ovation-default-deny":
                    for direction in ("ingress", "egress"):
                        found = self.problems(broken(row.objects, "NetworkPolicy", one["metadata"]["name"], "spec", direction, to=[{}]), row)
                        self.assertTrue(any("is not required" in each for each in found), f"{one['metadata']['name']} can allow all {direction}")

    def test_no_rule_can_be_for_any_peer_or_any_port(self):
        for row in ROWS:
            for name, direction, number, peers, rule in self.rules(row):
                if rule.get(peers) and direction == "ingress":
                    found = self.problems(broken(row.objects, "NetworkPolicy", name, "spec", direction, number, peers, to=None), row)
                    self.assertTrue(any("is not required" in one for one in found), f"{name} can allow any peer in {direction} {number}")
                    wider = broken(row.objects, "NetworkPolicy", name, "spec", direction, number, peers, to=[{"namespaceSelector": {}}])
                    self.assertTrue(any("is not required" in one for one in self.problems(wider, row)), f"{name} can allow every namespace")
                    ours = broken(row.objects, "NetworkPolicy", name, "spec", direction, number, peers, 0, to={"podSelector": {}})
                    self.assertTrue(self.problems(ours, row), f"{name} can allow its whole namespace")

    def test_a_policy_that_ignores_the_release_is_detected(self):
        for row in ROWS[:1]:
            objects = copy.deepcopy(row.objects)
            for one in objects:
                if one["kind"] == "NetworkPolicy":
                    for rule in one["spec"].get("ingress") or []:
                        for peer in rule.get("from") or []:
                            peer.get("podSelector", {}).get("matchLabels", {}).pop("app.kubernetes.io/instance", None)
            self.assertTrue(any("of another release" in one for one in self.problems(objects, row)))

    def test_pods_that_no_policy_selects_are_detected(self):
        for row in ROWS[:2]:
            without_policies = [one for one in row.objects if one["kind"] != "NetworkPolicy"]
            self.assertTrue(any("is not required" in one for one in self.problems(without_policies, row)))
            allowed = [one for one in row.objects if one["metadata"]["name"] != "ovation-default-deny"]
            # Each component also has its own policy. The policy default-deny is for pods without one.
            self.assertEqual(self.problems(allowed, row), [])
            labels = {"app.kubernetes.io/name": "ovation", "app.kubernetes.io/instance": "ovation"}
            stray = {"kind": "Pod", "metadata": {"name": "stray", "labels": labels}, "spec": {"containers": []}}
            self.assertEqual(self.problems([*row.objects, stray], row), [])
            self.assertTrue(self.problems([*allowed, stray], row))

    def test_disabled_policies_are_absent(self):
        off = matrix.merged(ROWS[0].values, {"networkPolicy": {"enabled": False}})
        self.assertTrue(list(network.connection_problems(ROWS[0].objects, off)))

    def test_ranges_names_protocols_and_exceptions_mean_the_same_as_in_kubernetes(self):
        a = network.Party("a", "10.0.0.1", "ovation", {"app": "a"}, {}, frozenset())
        b = network.Party("b", "10.0.0.2", "ovation", {"app": "b"}, {"web": 80}, frozenset({("TCP", 80)}))
        outside = network.Party("c", "192.0.2.9")
        all_ports = {("TCP", 80), ("TCP", 81), ("TCP", 90), ("UDP", 80)}

        def allowed(source, target, **spec):
            policy = {"metadata": {}, "release": "ovation", "spec": spec}
            return network.allowed([policy], source, target, all_ports)

        only_a = [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": "web"}]}]
        self.assertEqual(allowed(a, b, podSelector={}, ingress=only_a), {("TCP", 80)})
        self.assertEqual(allowed(outside, b, podSelector={}, ingress=only_a), set())
        self.assertEqual(allowed(outside, b, podSelector={"matchLabels": {"app": "x"}}, ingress=only_a), all_ports)
        self.assertEqual(allowed(a, b, podSelector={}, ingress=[{"ports": [{"port": 80, "endPort": 85}]}]), {("TCP", 80), ("TCP", 81)})
        self.assertEqual(allowed(a, b, podSelector={}, ingress=[{"ports": [{"protocol": "UDP"}]}]), {("UDP", 80)})
        self.assertEqual(allowed(a, b, podSelector={}, ingress=[]), set())
        self.assertEqual(allowed(a, outside, podSelector={}, ingress=[]), all_ports)
        block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.8/29"]}}
        self.assertEqual(allowed(a, outside, podSelector={}, policyTypes=["Egress"], egress=[{"to": [block]}]), set())
        del block["ipBlock"]["except"]
        self.assertEqual(allowed(a, outside, podSelector={}, policyTypes=["Egress"], egress=[{"to": [block]}]), all_ports)


class Generated(unittest.TestCase):
    """Stale or different generated files are detected."""

    def test_a_difference_between_built_and_rendered_objects_is_detected(self):
        expected = list(manifests.expected(()))
        self.assertEqual(list(manifests.differences(expected, expected)), [])
        self.assertTrue(list(manifests.differences(expected[1:], expected)))
        self.assertTrue(list(manifests.differences(expected, expected[1:])))
        other = broken(expected, "Deployment", "ovation-consumer", "spec", "template", "spec", "terminationGracePeriodSeconds", to=1)
        self.assertTrue(list(manifests.differences(other, expected)))

    def test_values_that_are_wrongly_accepted_or_rejected_are_detected(self):
        for rows, rejected, phrase in (
            ([matrix.Row("two", {"kafka.replicas": 2})], (), "two: helm template failed"),
            ([], (({}, "no"),), "helm template with {} must fail with “no”, but it succeeds"),
            ([], (({"kafka.replicas": 2}, "no"),), "but the error is"),
        ):
            with unittest.mock.patch.object(matrix, "rows", lambda: rows), unittest.mock.patch.multiple(
                matrix, REJECTED=rejected, misspelled=lambda: ()
            ):
                found = list(check.check_matrix())
            self.assertTrue(any(phrase in one for one in found), found)

    def test_every_valid_pair_of_choices_is_tried(self):
        seen = set()
        for choices in matrix.pairwise_combinations():
            self.assertTrue(matrix.is_valid(choices))
            seen |= {frozenset(pair) for pair in itertools.combinations(choices.items(), 2)}
        for one, other in itertools.combinations(matrix.OPTIONS, 2):
            for this, that in itertools.product(matrix.OPTIONS[one], matrix.OPTIONS[other]):
                if matrix.is_valid({one: this, other: that}):
                    self.assertIn(frozenset(((one, this), (other, that))), seen)

    def copy(self):
        """Returns a folder with copies of the files that the steps read. Tools and schemas are linked."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        for name in ("helm", "k8s", "grafana", "dev", "locust"):
            shutil.copytree(matrix.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        folder.joinpath("target").symlink_to((matrix.ROOT / "target").resolve())
        return folder

    def assert_fails(self, folder, step, phrase):
        ok, output = check.run(folder / "helm/check", step)
        self.assertFalse(ok, output)
        self.assertIn(phrase, output)

    def test_every_step_fails_on_invalid_files(self):
        for step, file, old, new, phrase in (
            ("k8s", "k8s/base/consumer.yaml", "9100", "9101", "k8s/base/consumer.yaml is not"),
            ("k8s", "k8s/overlays/gke/patches/kafka.yaml", "replicas: 3", "replicas: 2", "StatefulSet ovation-kafka differs from what Helm installs"),
            ("documents", "helm/ovation/values.yaml", "# -- Number of REST producer pods", "# -- Pods", "README.md differs from the output of helm-docs"),
            ("documents", "grafana/prometheus/rules/flow.yml", "groups:", "# changed\ngroups:", "run helm/sync"),
            ("lint", "helm/ovation/templates/config.yaml", "kind: ConfigMap", "kind: [", "helm lint"),
            ("floods", "locust/k8s/flood.yaml", "ovation-locust:0.1.0", "ovation-locust:0.2.0", "which is not in the values"),
            ("floods", "locust/k8s/flood.yaml", "component: worker\n      ports", "component: other\n      ports", "worker cannot connect to master"),
            ("floods", "locust/k8s/flood.yaml", "      ports:\n        - {port: 5557, protocol: TCP}\n", "", "can connect to master at 8089"),
            ("floods", "locust/k8s/namespace.yaml", "kind: NetworkPolicy", "kind: NetworkPolicies", "NetworkPolicies"),
            ("floods", "locust/k8s/compare.yaml", "capabilities: {drop: [ALL]}", "capabilities: {}", "compare, with options: Job compare: container compare does not drop ALL"),
            ("floods", "locust/k8s/compare.yaml", "backoffLimit: 0", "backofLimit: 0", "backofLimit"),
            ("floods", "locust/k8s/flood", '"parallelism": chosen.workers', '"paralelism": chosen.workers', "paralelism"),
            ("unit", "helm/ovation/templates/consumer/hpa.yaml", "{{ .Values.consumer.maxReplicas }}", "5", "uses the configured limits, target and delay"),
            ("unit", "helm/ovation/values.yaml", "\ndrainSeconds:", '\n# -- New\nnew: ""\ndrainSeconds:', "no unit test changes new"),
        ):
            with self.subTest(step=step, file=file):
                folder = self.copy()
                text = folder.joinpath(file).read_text()
                self.assertIn(old, text)
                folder.joinpath(file).write_text(text.replace(old, new, 1))
                if "changes new" in phrase:
                    schema = folder / "helm/ovation/values.schema.json"
                    schema.write_text(schema.read_text().replace('"additionalProperties": false,', "", 1))
                self.assert_fails(folder, step, phrase)


if __name__ == "__main__":
    unittest.main()
