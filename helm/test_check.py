"""That each check of helm/check can fail: it is shown manifests that are broken in one way each, and has to say so.
`helm/check --self-test` runs it."""

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
from references import references

loader = importlib.machinery.SourceFileLoader("check", str(Path(__file__).with_name("check")))
check = importlib.util.module_from_spec(importlib.util.spec_from_loader("check", loader))
loader.exec_module(check)

GATEWAY = {"entry.kind": "gateway", "redis.exporter.enabled": True, "mongodb.exporter.enabled": True, "kafka.jmxExporter.enabled": True}
WATCHED = {"podMonitor.enabled": True, "grafana.service.type": "LoadBalancer", **matrix.OPTIONS["scaling"]["KEDA"]}


def rendered(chosen):
    row = matrix.Row("", chosen)
    assert matrix.render(row) == []
    return row


ROWS = [rendered({}), rendered(GATEWAY), rendered(GATEWAY | WATCHED), rendered({**matrix.OPTIONS["kafka"]["elsewhere by Secret"]})]


def one_of(objects, kind, name):
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


def broken(objects, kind, name, *path, to):
    """A copy of the objects with one thing in it set to something else, or taken away if that is None."""
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

# What is set in a pod, to what, and what has to be said of it.
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
    ((*POD, "volumes", "+"), {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}, "volume t has a token"),
)

ENV = ("Deployment", "ovation-consumer", *CONTAINER, "env")

# In which row, of which object, what is set to what, and what has to be said of it.
BROKEN_NAMES = (
    (0, ("Deployment", "ovation-consumer", *CONTAINER, "env", 0, "value"), "$(NOBODY)", "takes $(NOBODY)"),
    (0, (*ENV, "+"), {"name": "A", "valueFrom": {"secretKeyRef": {"name": "ovation", "key": "no"}}}, "names no in"),
    (0, (*ENV, "+"), {"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}, "Secret x"),
    (0, ("Deployment", "ovation-consumer", *CONTAINER, "envFrom"), [{"secretRef": {"name": "z"}}], "Secret z"),
    (0, (*ENV, "+"), {"name": "A", "value": "http://ovation-nobody:1"}, "Service ovation-nobody"),
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

# A field that nobody knows, in every kind that the chart makes, and what else only a schema sees.
FORMS = (
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
    def says(self, found, phrase):
        found = list(found)
        self.assertTrue(any(phrase in one for one in found), f"nothing says {phrase}, but: {found}")

    def test_what_the_chart_makes_is_sound(self):
        for row in ROWS:
            self.assertEqual(list(check.sound(row.objects, row.values)), [])

    def test_each_rule_on_pods_is_enforced(self):
        for path, to, phrase in BROKEN_PODS:
            with self.subTest(path=path, to=to):
                self.says(pods.pods(broken(ROWS[0].objects, "Deployment", "ovation-consumer", *path, to=to)), phrase)

    def test_an_exception_has_a_reason_and_is_for_one_rule(self):
        self.assertTrue(all(pods.EXCEPTIONS.values()))
        objects = broken(ROWS[0].objects, "Deployment", "ovation-consumer", *POD, "hostNetwork", to=True)
        objects = broken(objects, "Deployment", "ovation-consumer", *SECURITY, "privileged", to=True)
        with unittest.mock.patch.dict(pods.EXCEPTIONS, {("ovation-consumer", "host namespaces"): "for this test"}):
            self.assertEqual(len(list(pods.pods(objects))), 1)

    def test_pods_of_every_kind_are_seen(self):
        pod = {"containers": [{"name": "a", "image": "b"}]}
        template = {"metadata": {}, "spec": pod}
        for kind, spec in {
            "Pod": pod, "CronJob": {"jobTemplate": {"spec": {"template": template}}},
            **dict.fromkeys(("Job", "DaemonSet", "StatefulSet", "ReplicaSet"), {"template": template}),
        }.items():
            self.says(pods.pods([{"kind": kind, "metadata": {"name": "x"}, "spec": spec}]), f"{kind} x: container a does not drop ALL")

    def test_an_account_has_no_token(self):
        self.says(pods.pods(broken(ROWS[0].objects, "ServiceAccount", "ovation-consumer", "automountServiceAccountToken", to=True)), "automount")

    def test_images_come_from_where_values_say(self):
        objects, values = ROWS[0].objects, ROWS[0].values
        for kind, name, path in (
            ("Deployment", "ovation-consumer", CONTAINER), ("StatefulSet", "ovation-kafka", CONTAINER), ("Pod", "ovation-test", ("spec", "containers", 0)),
        ):
            self.says(pods.images(broken(objects, kind, name, *path, "image", to="elsewhere:1"), values), "elsewhere:1")
        mirrored = matrix.merged(values, {"global": {"imageRegistry": "mirror.example.org"}})
        count = sum(len(pods.containers(spec)) for _, _, spec in pods.templates(objects))
        self.assertEqual(len(list(pods.images(objects, mirrored))), count)
        self.says(pods.images(objects, matrix.merged(values, {"imagePullSecrets": [{"name": "a"}]})), "imagePullSecrets")

    def test_one_thing_decides_on_the_number_of_pods(self):
        scaled = one_of(ROWS[2].objects, "ScaledObject", "ovation-consumer")
        self.says(pods.scaling([*ROWS[0].objects, scaled]), "scaled by HorizontalPodAutoscaler and by ScaledObject")
        self.says(pods.scaling(broken(ROWS[0].objects, "Deployment", "ovation-consumer", "spec", "replicas", to=2)), "has replicas")

    def test_gateway_and_ingress_are_never_together(self):
        self.says(check.sound([*ROWS[1].objects, one_of(ROWS[0].objects, "Ingress", "ovation")], ROWS[1].values), "Gateway and Ingress")

    def test_every_name_is_looked_up(self):
        for row, path, to, phrase in BROKEN_NAMES:
            with self.subTest(path=path, to=to):
                self.says(references(broken(ROWS[row].objects, *path, to=to)), phrase)

    def test_every_form_is_checked_by_every_version(self):
        documents = {}
        for number, (row, path, to) in enumerate(FORMS):
            one = one_of(broken(ROWS[row].objects, *path, to=to), path[0] if path[-1] != "kind" else to, path[1])
            documents[f"form {number}"] = manifests.dump(one)
        found = list(check.schemas(documents))
        for number, form in enumerate(FORMS):
            for version in ("1.35", "1.36", "1.37"):
                self.assertTrue(any(f"Kubernetes {version}: form {number}:" in one for one in found), f"{version} lets pass {form}")
        self.assertEqual(list(check.schemas({"a": manifests.dump(ROWS[0].objects[0])})), [])


class Connections(unittest.TestCase):
    """Of every rule of every policy: it is needed, and one that is wider in any way is seen."""

    def wrong(self, objects, row):
        return list(network.connections(objects, row.values))

    def rules(self, row):
        for one in row.objects:
            if one["kind"] == "NetworkPolicy":
                for way, peers in (("ingress", "from"), ("egress", "to")):
                    for number, rule in enumerate(one["spec"].get(way) or []):
                        yield one["metadata"]["name"], way, number, peers, rule

    def test_no_rule_can_be_left_out(self):
        for row in ROWS:
            for name, way, number, _, _ in self.rules(row):
                found = self.wrong(broken(row.objects, "NetworkPolicy", name, "spec", way, number, to=None), row)
                self.assertTrue(any("can't connect" in one for one in found), f"{name} needs no {way} {number}")

    def test_no_port_can_be_left_out(self):
        for row in ROWS:
            for name, way, number, _, rule in self.rules(row):
                for port in range(len(rule["ports"])):
                    if len(rule["ports"]) > 1:
                        found = self.wrong(broken(row.objects, "NetworkPolicy", name, "spec", way, number, "ports", port, to=None), row)
                        self.assertTrue(any("can't connect" in one for one in found), f"{name} needs no port {port} of {way} {number}")

    def test_no_policy_can_be_open(self):
        for row in ROWS[:2]:
            for one in row.objects:
                if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] != "ovation-default-deny":
                    for way in ("ingress", "egress"):
                        found = self.wrong(broken(row.objects, "NetworkPolicy", one["metadata"]["name"], "spec", way, to=[{}]), row)
                        self.assertTrue(any("and needs not" in each for each in found), f"{one['metadata']['name']} may be open for {way}")

    def test_no_rule_can_be_for_any_peer_or_any_port(self):
        for row in ROWS:
            for name, way, number, peers, rule in self.rules(row):
                if rule.get(peers) and way == "ingress":
                    found = self.wrong(broken(row.objects, "NetworkPolicy", name, "spec", way, number, peers, to=None), row)
                    self.assertTrue(any("and needs not" in one for one in found), f"{name} may take anybody by {way} {number}")
                    wider = broken(row.objects, "NetworkPolicy", name, "spec", way, number, peers, to=[{"namespaceSelector": {}}])
                    self.assertTrue(any("and needs not" in one for one in self.wrong(wider, row)), f"{name} may take every namespace")
                    ours = broken(row.objects, "NetworkPolicy", name, "spec", way, number, peers, 0, to={"podSelector": {}})
                    self.assertTrue(self.wrong(ours, row), f"{name} may take all of its namespace")

    def test_a_policy_without_the_release_is_seen(self):
        for row in ROWS[:1]:
            objects = copy.deepcopy(row.objects)
            for one in objects:
                if one["kind"] == "NetworkPolicy":
                    for rule in one["spec"].get("ingress") or []:
                        for peer in rule.get("from") or []:
                            peer.get("podSelector", {}).get("matchLabels", {}).pop("app.kubernetes.io/instance", None)
            self.assertTrue(any("of another release" in one for one in self.wrong(objects, row)))

    def test_pods_that_no_policy_selects_are_seen(self):
        for row in ROWS[:2]:
            kept = [one for one in row.objects if one["kind"] != "NetworkPolicy"]
            self.assertTrue(any("and needs not" in one for one in self.wrong(kept, row)))
            allowed = [one for one in row.objects if one["metadata"]["name"] != "ovation-default-deny"]
            # Each component has a policy of its own too: what default-deny is for is a pod without one.
            self.assertEqual(self.wrong(allowed, row), [])
            labels = {"app.kubernetes.io/name": "ovation", "app.kubernetes.io/instance": "ovation"}
            stray = {"kind": "Pod", "metadata": {"name": "stray", "labels": labels}, "spec": {"containers": []}}
            self.assertEqual(self.wrong([*row.objects, stray], row), [])
            self.assertTrue(self.wrong([*allowed, stray], row))

    def test_policies_are_off_when_they_are_off(self):
        off = matrix.merged(ROWS[0].values, {"networkPolicy": {"enabled": False}})
        self.assertTrue(list(network.connections(ROWS[0].objects, off)))

    def test_ranges_names_protocols_and_exceptions_mean_what_kubernetes_means(self):
        a = network.Party("a", "10.0.0.1", "ovation", {"app": "a"}, {}, frozenset())
        b = network.Party("b", "10.0.0.2", "ovation", {"app": "b"}, {"web": 80}, frozenset({("TCP", 80)}))
        outside = network.Party("c", "192.0.2.9")
        universe = {("TCP", 80), ("TCP", 81), ("TCP", 90), ("UDP", 80)}

        def allowed(source, target, **spec):
            policy = {"metadata": {}, "release": "ovation", "spec": spec}
            return network.allowed([policy], source, target, universe)

        only_a = [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": "web"}]}]
        self.assertEqual(allowed(a, b, podSelector={}, ingress=only_a), {("TCP", 80)})
        self.assertEqual(allowed(outside, b, podSelector={}, ingress=only_a), set())
        self.assertEqual(allowed(outside, b, podSelector={"matchLabels": {"app": "x"}}, ingress=only_a), universe)
        self.assertEqual(allowed(a, b, podSelector={}, ingress=[{"ports": [{"port": 80, "endPort": 85}]}]), {("TCP", 80), ("TCP", 81)})
        self.assertEqual(allowed(a, b, podSelector={}, ingress=[{"ports": [{"protocol": "UDP"}]}]), {("UDP", 80)})
        self.assertEqual(allowed(a, b, podSelector={}, ingress=[]), set())
        self.assertEqual(allowed(a, outside, podSelector={}, ingress=[]), universe)
        block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.8/29"]}}
        self.assertEqual(allowed(a, outside, podSelector={}, policyTypes=["Egress"], egress=[{"to": [block]}]), set())
        del block["ipBlock"]["except"]
        self.assertEqual(allowed(a, outside, podSelector={}, policyTypes=["Egress"], egress=[{"to": [block]}]), universe)


class Made(unittest.TestCase):
    """What is made from the chart is seen to be stale, or to be something else."""

    def test_a_difference_of_what_is_built_is_seen(self):
        expected = list(manifests.expected(()))
        self.assertEqual(list(manifests.differences(expected, expected)), [])
        self.assertTrue(list(manifests.differences(expected[1:], expected)))
        self.assertTrue(list(manifests.differences(expected, expected[1:])))
        other = broken(expected, "Deployment", "ovation-consumer", "spec", "template", "spec", "terminationGracePeriodSeconds", to=1)
        self.assertTrue(list(manifests.differences(other, expected)))

    def test_a_way_to_set_values_that_fails_is_seen(self):
        for rows, refused, phrase in (
            ([matrix.Row("two", {"kafka.replicas": 2})], (), "two: helm template fails"),
            ([], (({}, "no"),), "{} should be refused with “no”, and is not"),
            ([], (({"kafka.replicas": 2}, "no"),), "and is with"),
        ):
            with unittest.mock.patch.object(matrix, "rows", lambda: rows), unittest.mock.patch.multiple(
                matrix, REFUSED=refused, misspelled=lambda: ()
            ):
                found = list(check.check_matrix())
            self.assertTrue(any(phrase in one for one in found), found)

    def test_all_that_goes_together_is_together_in_some_way(self):
        seen = set()
        for choices in matrix.pairs():
            self.assertTrue(matrix.goes_together(choices))
            seen |= {frozenset(pair) for pair in itertools.combinations(choices.items(), 2)}
        for one, other in itertools.combinations(matrix.OPTIONS, 2):
            for this, that in itertools.product(matrix.OPTIONS[one], matrix.OPTIONS[other]):
                if matrix.goes_together({one: this, other: that}):
                    self.assertIn(frozenset(((one, this), (other, that))), seen)

    def copy(self):
        """The files that the steps read, in a folder where they may be broken; tools and schemas stay where they are."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        for name in ("helm", "k8s", "grafana", "dev", "locust"):
            shutil.copytree(matrix.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        folder.joinpath("target").symlink_to((matrix.ROOT / "target").resolve())
        return folder

    def fails(self, folder, step, phrase):
        fine, said = check.run(folder / "helm/check", step)
        self.assertFalse(fine, said)
        self.assertIn(phrase, said)

    def test_a_step_fails_on_what_it_is_for(self):
        for step, file, old, new, phrase in (
            ("k8s", "k8s/base/consumer.yaml", "9100", "9101", "k8s/base/consumer.yaml is not what the chart makes"),
            ("k8s", "k8s/overlays/gke/patches/kafka.yaml", "replicas: 3", "replicas: 2", "StatefulSet ovation-kafka is not what Helm installs"),
            ("documents", "helm/ovation/values.yaml", "# -- Pods of the REST door", "# -- Pods", "README.md is not what helm-docs makes"),
            ("documents", "grafana/prometheus/rules/flow.yml", "groups:", "# changed\ngroups:", "run helm/sync"),
            ("lint", "helm/ovation/templates/config.yaml", "kind: ConfigMap", "kind: [", "helm lint"),
            ("floods", "locust/k8s/flood.yaml", "ovation-locust:0.1.0", "ovation-locust:0.2.0", "which values don't name"),
            ("floods", "locust/k8s/flood.yaml", "component: worker\n      ports", "component: nobody\n      ports", "worker can't connect to master"),
            ("floods", "locust/k8s/flood.yaml", "      ports:\n        - {port: 5557, protocol: TCP}\n", "", "may connect to master at 8089"),
            ("floods", "locust/k8s/namespace.yaml", "kind: NetworkPolicy", "kind: NetworkPolicies", "NetworkPolicies"),
            ("floods", "locust/k8s/compare.yaml", "capabilities: {drop: [ALL]}", "capabilities: {}", "compare, with more: Job compare: container compare does not drop ALL"),
            ("floods", "locust/k8s/compare.yaml", "backoffLimit: 0", "backofLimit: 0", "backofLimit"),
            ("floods", "locust/k8s/flood", '"parallelism": chosen.workers', '"paralelism": chosen.workers', "paralelism"),
            ("unit", "helm/ovation/templates/consumer/hpa.yaml", "{{ .Values.consumer.maxReplicas }}", "5", "scales as it is told"),
            ("unit", "helm/ovation/values.yaml", "\ndrainSeconds:", '\n# -- New\nnew: ""\ndrainSeconds:', "no unit test sets new"),
        ):
            with self.subTest(step=step, file=file):
                folder = self.copy()
                text = folder.joinpath(file).read_text()
                self.assertIn(old, text)
                folder.joinpath(file).write_text(text.replace(old, new, 1))
                if "sets new" in phrase:
                    schema = folder / "helm/ovation/values.schema.json"
                    schema.write_text(schema.read_text().replace('"additionalProperties": false,', "", 1))
                self.fails(folder, step, phrase)


if __name__ == "__main__":
    unittest.main()
